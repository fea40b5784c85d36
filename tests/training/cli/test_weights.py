"""`resnext weights`: real files in and out."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Trained
from tests.training.network import published
from training.cli.command import main
from training.network import resnext
from training.network.published_weights import load_published
from training.weights.store import WeightsStore
from training.weights.tensors import COUNTER, open_tensors

FLAGS = ["--image-size=64", "--licence=mit", "--origin=a test"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder to work in, where `labels.txt` has ten labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESNEXT_WEIGHTS")
    (tmp_path / "labels.txt").write_text("".join(f"{i}\n" for i in range(10)))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["weights", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def take_in(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call(capsys, "import", str(published.FILE), "--labels=labels.txt", *FLAGS, *arguments)


def test_weights_come_in_are_listed_shown_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = take_in(capsys, "--resize=73", "--mean=0.5,0.5,0.5")
    assert (code, err) == (0, "")
    assert "weights small: resnext17_2x1d, images of 64 of 73, bilinear, 10 classes, licence mit" in out
    _, out, _ = call(capsys, "list")
    assert out.splitlines()[1].split() == [
        *["small", "resnext17_2x1d", "64", "of", "73,", "bilinear", "10", "mit", "a", "test", "93", "kB"]
    ]
    _, out, _ = call(capsys, "show", "small")
    shown = json.loads(out)
    assert (shown["preprocessing"]["resize"], shown["preprocessing"]["mean"]) == (73, [0.5, 0.5, 0.5])
    assert shown["labels"] == list("0123456789")
    assert call(capsys, "remove", "small")[0] == 0
    assert "there are no weights in weights" in call(capsys, "list")[1]
    assert [path.name for path in (folder / "weights").iterdir()] == [".lock"]


@pytest.mark.usefixtures("folder")
def test_the_setting_names_the_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEXT_WEIGHTS", "elsewhere")
    assert take_in(capsys)[0] == 0
    assert WeightsStore(Path("elsewhere")).names() == ["small"]
    assert take_in(capsys, "--weights=here", "--name=other")[0] == 0
    assert WeightsStore(Path("here")).names() == ["other"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ([], 2, r"needs --preset \(tv_in1k, .* or all of --image-size, --labels, --licence and --origin"),
        (["--preset=tv_in1k"], 1, r"small\.safetensors names 10 classes, there are 1000 labels"),
        (["--preset=tv_in1k", "--resize-mode=pad", "--licence=mit"], 2, "already what --licence, --resize-mode would"),
        (["--preset=tv_in1k", "--image-size=288"], 1, "'tv_in1k' is known for images of 224 pixels, got 288"),
        (["--preset=tv"], 1, "there is no preset 'tv'; there are: tv_in1k"),
        (["--preset=fb_swsl_ig1b_ft_in1k"], 1, "'cc-by-nc-4.0' does not. --allow-noncommercial"),
        ([*FLAGS, "--labels=labels.txt", "--resize=60"], 2, "--resize is for --resize-mode crop, .* at least"),
        ([*FLAGS, "--labels=labels.txt", "--name=a/b"], 2, "--name: a name should have"),
        ([*FLAGS, "--labels=labels.txt", "--std=1,0,1"], 2, "--std.*greater than 0"),
        ([*FLAGS, "--labels=none.txt"], 1, r"none\.txt: No such file"),
    ],
)
def test_what_is_not_enough_or_contradicts_itself_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, complaint: str
) -> None:
    code, _, err = call(capsys, "import", str(published.FILE), *arguments)
    assert code == status
    assert err.startswith("error: ")
    assert re.search(complaint, err), err
    assert not Path("weights").exists() or WeightsStore(Path("weights")).names() == []


@pytest.mark.usefixtures("folder")
def test_damaged_weights_are_listed_with_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    take_in(capsys)
    take_in(capsys, "--name=whole")
    Path("weights/small.safetensors").write_bytes(b"")
    _, out, _ = call(capsys, "list")
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["small", "damaged"], ["whole", "resnext17_2x1d"]]
    assert "weights/small.safetensors should have 92944 bytes, it has 0" in out
    code, _, err = call(capsys, "show", "small")
    assert (code, err) == (1, "error: weights/small.safetensors should have 92944 bytes, it has 0\n")


@pytest.mark.usefixtures("folder")
def test_published_weights_go_out_as_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    take_in(capsys)
    code, out, _ = call(capsys, "export", "small", "out.safetensors")
    assert (code, out) == (0, "the published weights small are in out.safetensors, 93 kB\n")
    assert Path("out.safetensors").read_bytes() == published.FILE.read_bytes()
    code, _, err = call(capsys, "export", "small", "out.safetensors")
    assert (code, err) == (1, "error: out.safetensors is there already: name another file\n")
    code, _, err = call(capsys, "export", "small", "none/out.safetensors")
    assert (code, err) == (1, "error: none should be a folder, for out.safetensors; there is none\n")


def test_a_version_and_a_run_go_out_in_torchvisions_names(
    folder: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    models = f"--models={trained.repository.root}"
    assert call(capsys, "export", "small", "active.safetensors", models)[0] == 0
    assert call(capsys, "export", "small@1", "first.safetensors", models)[0] == 0
    assert call(capsys, "export", str(trained.run.folder), "run.safetensors")[0] == 0
    written = [(folder / f"{name}.safetensors").read_bytes() for name in ("active", "first", "run")]
    assert written[0] == written[1] == written[2]
    model = resnext.build(trained.config.architecture, trained.config.preprocessing, 10)
    with open_tensors(folder / "first.safetensors") as tensors:
        assert "layer2.0.downsample.1.running_var" in tensors
        load_published(model, tensors)
    assert COUNTER.encode() in written[0]
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        logits = np.asarray(model(golden["images"], training=False))
        expected = golden["probabilities"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.usefixtures("folder")
def test_an_export_of_something_else_says_what_there_is(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    models = f"--models={trained.repository.root}"
    take_in(capsys, "--name=mine")
    for what, complaint in (
        ("smal", "'smal' should be a model in .*, the folder of a run, or weights in weights, which has mine"),
        ("small@7", "model 'small' has no version 7; it has: 1"),
        ("small@x", "a version should be a number, as in resnext50@3, got 'x'"),
        ("smal@1", "there is no model 'smal'"),
    ):
        code, _, err = call(capsys, "export", what, "out.safetensors", models)
        assert code in (1, 2)
        assert re.search(complaint, err), err
    take_in(capsys, "--name=small")
    assert "small@VERSION is the model's" in call(capsys, "export", "small", "out.safetensors", models)[2]
    assert not Path("out.safetensors").exists()
