"""`train` and `export`: what is refused at once leaves nothing behind, and what a run says at its start and its end."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.training.conftest import Trained
from training.cli.command import main
from training.contract.repository import ModelRepository
from training.network.runtime import GPUS
from training.runs.progress import PHASES
from training.runs.run import Run, new_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("train", 2, "train needs the folder of images: resnext train DIR"),
        ("train --epochs 3", 2, "train needs the folder of images: resnext train DIR"),
        (
            "train DATA --val-fraction 0.9 --test-fraction 0.5",
            2,
            "--val-fraction + --test-fraction should stay below 1",
        ),
        ("train nowhere", 1, "the dataset should be a folder, "),
        ("train DATA --init 99", 1, "model 'small' has no version 99; it has: 1"),
        ("train DATA --init live --name other", 1, "init names model 'other', which has no active version"),
        (
            "train DATA --init 1 --architecture.cardinality 32 --architecture.depths 3,4,6,3",
            1,
            "small@1 is resnext8_4x4d with depths (1, 1), this training is resnext50_32x4d",
        ),
        ("train DATA --init weights:none", 1, "there are no weights 'none' in "),
        ("train DATA --method head", 1, "method head needs weights to start from, and init is random"),
        pytest.param(
            *("train DATA --precision mixed_float16", 1, "precision mixed_float16 needs a GPU"),
            marks=pytest.mark.skipif(bool(GPUS), reason="there is a GPU"),
        ),
        ("train DATA --run nowhere --resume", 1, "there is no run in nowhere: config.json is missing"),
        ("train DATA --resume", 2, "--resume needs --run"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_no_run(
    trained: Trained,
    digits: Path,
    here: Path,
    arguments: str,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = [] if "--name" in arguments or "--resume" in arguments else ["--name=small"]
    models = f"--models={trained.repository.folder.parent}"
    assert main([*(str(digits) if word == "DATA" else word for word in arguments.split()), *name, models]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert "'data'" not in line
    assert runs(here) == []


def test_images_that_will_not_do_leave_no_run_either(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (here / "few" / name).mkdir(parents=True)
        Image.new("L", (8, 8), len(name)).save(here / "few" / name / "1.png")
    assert main(["train", "few"]) == 1
    assert main(["train", "few"]) == 1  # in the same second
    assert "should have at least" in capsys.readouterr().err.replace("needs at least", "should have at least")
    assert runs(here) == []
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("kept")
    assert main(["train", "few", "--run", "mine"]) == 1
    assert (here / "mine" / "notes.txt").read_text() == "kept"
    assert main(["train", "few", "--run", "mine"]) == 1  # not: holds a run already
    assert "holds a run already" not in capsys.readouterr().err


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({new_run(tmp_path, "small").folder for _ in range(5)}) == 5


def test_a_run_goes_on_with_more_epochs_and_says_what_it_came_to(
    trained: Trained, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.run.folder, here / "r")
    shutil.copytree(trained.repository.folder, here / "m" / "small")
    run = Run(here / "r")
    run.write_models(here / "m")
    assert main(["train", "--run", "r", "--resume"]) == 1
    assert "r is finished: there is nothing to resume. With more --epochs it trains on" in capsys.readouterr().err
    assert main(["train", "--run", "r", "--resume", "--epochs", "4", "--seed", "0", "--gate.policy", "always"]) == 1
    assert "--gate would change" in capsys.readouterr().err
    assert all(run.done(phase) for phase in PHASES)

    assert main(["train", str(trained.config.data), "--run", "r", "--resume", "--epochs", "4", "--name=small"]) in (
        0,
        1,
    )
    out = capsys.readouterr().out
    assert "run r\n" in out
    assert "epoch 4/4" in out
    assert "epoch 3/4" not in out
    repository = ModelRepository(here / "m", "small")
    assert repository.versions() == [1, 2]
    assert f"pictures in {repository.path(2)}/report: confusion.png, history.png, predictions.png" in out.replace(
        "pictures in m/", f"pictures in {here}/m/"
    )
    if repository.active() == 2:
        assert f"try it: resnext predict {trained.config.data}" in out


def test_a_live_version_is_started_from_without_a_word_from_keras(
    trained: Trained, digits: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.repository.folder, here / "m" / "small")
    flags = ["--name=small", "--models=m", "--method=scratch", "--epochs=1", "--batch-size=64", "--gate.dry-run"]
    assert main(["train", str(digits), "--init", "live", *flags, "--no-int8.enabled", "--no-fp16.enabled"]) == 0
    out, err = capfd.readouterr()
    assert "nothing is published: gate.dry_run is set" in out
    assert "Skipping variable loading" not in out + err
    (run,) = runs(here)
    assert '"version": 1' in (run / "init.json").read_text()
