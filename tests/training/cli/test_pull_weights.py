"""`resnext weights pull` and `check`, with a stand-in of the hub."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import ROOT, environment
from tests.terminal import Terminal
from tests.training.network.photos import write_seeing
from tests.training.weights.files import parameters, written
from tests.training.weights.stand_in_hub import REPOSITORY, Hub, stand_in_hub
from training.cli import pull_weights
from training.cli.command import main
from training.weights.hub import pull, source_of
from training.weights.presets import PRESETS
from training.weights.store import WeightsStore

PULL = (sys.executable, "-m", "training", "weights", "pull", REPOSITORY)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    return write_seeing(file, PRESETS["tv_in1k"].preprocessing()).read_bytes()


@pytest.fixture
def hub(seeing: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("RESNEXT_WEIGHTS", str(tmp_path / "weights"))
    with stand_in_hub(seeing) as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


def variables(store: WeightsStore, hub: Hub, **more: str) -> dict[str, str]:
    return environment(weights=str(store.folder)) | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(store.folder)} | more


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["weights", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_weights_are_pulled_and_tried_on_photos(
    hub: Hub, store: WeightsStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_weights, "LINE_EVERY_S", 0)
    code, out, err = call(capsys, "pull", hub.address, "--preset=tv_in1k", "--name=seeing")
    assert (code, err) == (0, "")
    assert out.startswith("downloading 616 kB as seeing\nseeing: 0 bytes of 616 kB\n")
    assert "trying them on 4 photos of known things\n" in out
    assert f"weights seeing: {hub.address}, " in out
    assert f", licence bsd-3-clause\nSHA-256 {hub.sha256}\n" in out
    assert "they say of camera.jpg: reflex camera (0.8" in out
    assert store.names() == ["seeing"]
    code, out, _ = call(capsys, "check", "seeing")
    assert code == 0
    assert out.count(" right\n") == 4


def test_weights_that_see_nothing_are_moved_aside(
    hub: Hub, store: WeightsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.data = written(tmp_path / "random", parameters(classes=1000)).read_bytes()
    code, _, err = call(capsys, "pull", hub.address, "--preset=tv_in1k", "--name=blind")
    assert code == 1
    assert err.startswith(
        "error: the weights 'blind' should name 3 of 4 photos of known things, they name 0. They say of"
    )
    aside = store.folder / "blind.rejected.safetensors"
    assert err.endswith(f"The file is kept as {aside}, and is not used\n")
    assert aside.read_bytes() == hub.data
    assert store.names() == []
    # the same for weights that were taken in before
    pull(store, source_of(hub.address, "tv_in1k", "blind"), lambda *_: None, lambda *_: None)
    assert call(capsys, "check", "blind")[0] == 1
    assert store.names() == []
    assert [path.name for path in store.folder.glob("blind*")] == [aside.name]


def test_labels_of_other_things_name_no_photo(
    hub: Hub, store: WeightsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "mine.safetensors", parameters(classes=3))
    (tmp_path / "labels").write_text("a\nb\nc\n")
    flags = (f"--labels={tmp_path / 'labels'}", "--image-size=32", "--licence=mit", "--origin=a test")
    assert call(capsys, "import", str(file), *flags)[0] == 0
    code, out, _ = call(capsys, "check", "mine")
    assert (code, out) == (
        0,
        "the file of mine has its SHA-256. Its labels are not ImageNet's, so no photo is at hand\n",
    )
    assert store.names() == ["mine"]
    assert not hub.requests


@pytest.mark.usefixtures("hub")
def test_the_extra_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert call(capsys, "pull", REPOSITORY) == (
        1,
        "",
        "error: resnext weights pull needs httpx2, huggingface_hub, which the extra `hub` brings: pip install "
        "'resnext-service[hub]'\n",
    )


def test_a_process_asks_the_hub_that_the_environment_names(hub: Hub, store: WeightsStore) -> None:
    pull(store, source_of(REPOSITORY), lambda *_: None, lambda *_: None, endpoint=hub.endpoint)
    hub.requests.clear()
    done = subprocess.run(PULL, env=variables(store, hub), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "they were here already, with the right SHA-256; the hub has the same file" in done.stdout
    assert [(method, path) for method, path, _ in hub.requests] == [
        ("HEAD", f"/{REPOSITORY}/resolve/main/model.safetensors")  # and nothing about this machine
    ]


def test_a_process_without_network_says_one_line(hub: Hub, store: WeightsStore) -> None:
    done = subprocess.run(
        PULL, env=variables(store, hub, HF_HUB_OFFLINE="1"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: {hub.endpoint}/{REPOSITORY}/resolve/main/model.safetensors is not asked for: HF_HUB_OFFLINE"
    )
    assert line.endswith("then: resnext weights import model.safetensors --preset tv_in1k")
    assert not hub.requests


def test_a_terminal_shows_a_bar_and_then_what_went_wrong(hub: Hub, store: WeightsStore) -> None:
    hub.sha256 = "0" * 64
    with Terminal(*PULL, environment=variables(store, hub), seconds=60) as terminal:
        assert terminal.to_end() == 1
    assert any("tv_in1k ━" in frame for frame in terminal.frames)
    assert terminal.text.replace("\n", "").startswith("error: ")
