"""Resuming a run: with the same images wherever they lie, for more epochs, and with no other change."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.training.conftest import Trained
from training.datasets.loading import load, read_samples
from training.runs.progress import PHASES
from training.runs.resume import require_images, resume
from training.runs.run import Run, RunError


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Run:
    """A copy of the finished run."""
    shutil.copytree(trained.run.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def test_the_same_folder_by_another_path_or_a_link_is_the_same_data(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run.config()
    (tmp_path / "link").symlink_to(config.data)
    monkeypatch.chdir(config.data.parent)
    for data in (tmp_path / "link", Path(config.data.name), config.data.parent / "x" / ".." / config.data.name):
        if data.parent.name == "..":
            os.makedirs(config.data.parent / "x", exist_ok=True)
        resume(run, config.model_copy(update={"data": data}))
        assert run.config() == config


def test_a_folder_that_was_moved_is_proven_by_its_bytes(run: Run, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "moved")
    config = run.config()
    resume(run, config.model_copy(update={"data": tmp_path / "moved"}))
    assert run.config().data == tmp_path / "moved"
    samples = read_samples(run.samples)
    assert all(sample.path.is_relative_to(tmp_path / "moved") for sample in samples)
    assert load(samples, config.preprocessing, tmp_path / "cache", ("val",))["val"].samples
    assert all(run.done(phase) for phase in PHASES)
    resume(run, config)  # and back
    assert read_samples(run.samples)[0].path.is_relative_to(digits)


@pytest.mark.parametrize(
    ("harm", "said"), [(Path.unlink, "missing"), (lambda path: path.write_bytes(b"x"), "another one")]
)
def test_a_folder_of_other_images_is_refused_and_changes_nothing(
    run: Run, digits: Path, tmp_path: Path, harm: object, said: str
) -> None:
    shutil.copytree(digits, tmp_path / "moved")
    victim = read_samples(run.samples)[7].name
    assert callable(harm)
    harm(tmp_path / "moved" / victim)
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.json")}
    with pytest.raises(RunError, match=rf"should hold the 1797 images .* was checked with; {victim} is {said}"):
        resume(run, run.config().model_copy(update={"data": tmp_path / "moved"}))
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.json")} == before


def test_a_folder_that_has_moved_unseen_is_told_with_the_command_that_helps(
    run: Run, digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits, tmp_path / "moved")
    resume(run, run.config().model_copy(update={"data": tmp_path / "moved"}))
    (tmp_path / "moved").rename(tmp_path / "again")
    run.forget("gating", "publishing")
    gone = rf"are gone: 1797 of 1797, the first is {tmp_path}/moved/.*go on with: resnext train DIR --run \S+ --resume"
    with pytest.raises(RunError, match=gone):
        require_images(run)
    resume(run, run.config().model_copy(update={"data": tmp_path / "again"}))
    require_images(run)


def test_any_other_change_is_refused_and_named_as_it_is_typed(run: Run) -> None:
    with pytest.raises(RunError, match="keeps its config; --image-size, --batch-size would change"):
        resume(run, run.config().model_copy(update={"image_size": 64, "batch_size": 8, "epochs": 9}))
    with pytest.raises(RunError, match=r"may get more epochs: .* has 3, --epochs is 2"):
        resume(run, run.config().model_copy(update={"epochs": 2}))
    assert all(run.done(phase) for phase in PHASES)


def test_more_epochs_train_on_also_after_an_early_stop(run: Run) -> None:
    for path in run.checkpoints.glob("*state.json"):
        state = json.loads(path.read_text())
        state["stopped"] = True
        state["callbacks"]["EarlyStopping"] |= {"wait": 8, "stopped_epoch": 2}
        path.write_text(json.dumps(state))
    best = state["callbacks"]["EarlyStopping"]["best"]
    (run.checkpoints / "epoch-0001.state.json").write_text("")  # a damaged one is the training's matter
    resume(run, run.config().model_copy(update={"epochs": 5}))
    assert run.config().epochs == 5
    assert [phase for phase in PHASES if run.done(phase)] == ["checking"]
    state = json.loads((run.checkpoints / "state.json").read_text())
    assert (state["stopped"], state["epochs_done"]) == (False, 3)
    assert state["callbacks"]["EarlyStopping"]["wait"] == 0
    assert state["callbacks"]["EarlyStopping"]["best"] == best


def test_more_epochs_need_a_checkpoint(run: Run) -> None:
    shutil.rmtree(run.checkpoints)
    with pytest.raises(RunError, match="has no checkpoint to go on from"):
        resume(run, run.config().model_copy(update={"epochs": 5}))
    assert run.done("training")


def test_there_has_to_be_a_run(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run in"):
        resume(Run(tmp_path), trained.config)
    (tmp_path / "config.json").write_text('{"data": ')
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        resume(Run(tmp_path), trained.config)
