"""A whole run: what it writes, what it refuses, and that it goes on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.conftest import Trained
from tests.training.datasets.folders import flat
from training.contract.repository import ModelRepository
from training.phases.__main__ import main
from training.phases.order import run_phases
from training.runs.progress import PHASES, read_progress
from training.runs.records import PublishRecord
from training.runs.run import Run, RunError


def test_a_run_ends_as_the_active_version(trained: Trained) -> None:
    manifest, repository = trained.manifest, trained.repository
    assert repository.versions() == [1]
    assert repository.active() == 1
    repository.verify_files(1)
    assert manifest.labels == list("0123456789")
    assert manifest.metrics["test"].accuracy > 0.5
    assert manifest.dataset
    assert manifest.dataset.images == {"train": 1259, "val": 269, "test": 269}
    assert manifest.parity.top1_equal == manifest.parity.images == 269
    assert manifest.config == trained.config.model_dump(mode="json")
    assert manifest.training_seconds > 0
    assert manifest.run == "run"
    assert manifest.gate is not None
    assert manifest.gate.passed
    assert {"tensorflow", "keras", "tf2onnx", "onnx", "python"} <= set(manifest.libraries)
    assert trained.run.record("publishing", PublishRecord) == PublishRecord(version=1, active=True)


def test_the_report_lies_in_the_version(trained: Trained) -> None:
    report = trained.repository.path(1) / "report"
    assert {path.name for path in report.iterdir()} == {
        "history.png", "confusion.png", "predictions.png", "history.json", "dataset.json", "val.json", "test.json",
    }  # fmt: skip
    test = json.loads((report / "test.json").read_text())
    assert test["accuracy"] == trained.manifest.metrics["test"].accuracy
    assert np.trace(test["confusion"]) == round(test["accuracy"] * test["images"])


def test_progress_can_be_followed_by_another_process(trained: Trained) -> None:
    progress = read_progress(trained.run.progress)
    assert [phase.name for phase in progress.phases] == list(PHASES)
    assert all(phase.done for phase in progress.phases)
    assert [epoch.epoch for epoch in progress.epochs] == [1, 2, 3]
    assert all(0 <= epoch.val_accuracy <= 1 for epoch in progress.epochs)
    assert progress.step is not None
    assert None not in progress.step.model_dump().values()


def test_the_person_watching_sees_the_proof_and_the_verdict(trained: Trained) -> None:
    assert "same class on 269 of 269 images" in trained.printed
    assert "passed: test accuracy" in trained.printed


def test_a_finished_run_does_nothing_more(trained: Trained) -> None:
    before = trained.run.progress.read_text()
    run_phases(trained.run, trained.repository, Console(quiet=True))
    assert trained.repository.versions() == [1]
    assert trained.run.progress.read_text() == before


def test_a_used_folder_is_not_overwritten(trained: Trained) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        trained.run.claim(trained.config)


def test_a_phase_by_command_says_why_it_failed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.claim(trained.config.model_copy(update={"data": tmp_path / "nowhere"}))
    assert main([str(run.folder), "checking", f"--models={tmp_path}"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: the dataset should be a folder, {tmp_path}/nowhere is not there"
    )
    assert not run.done("checking")
    assert ModelRepository(tmp_path, "small").versions() == []


def test_a_full_disk_is_the_reason_in_words(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.claim(trained.config.model_copy(update={"data": flat(tmp_path / "data")}))
    (run.folder / ".checking.json.tmp").symlink_to("/dev/full")  # the record's first name
    assert main([str(run.folder), "checking", f"--models={tmp_path}"]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not run.done("checking")
    (run.folder / ".checking.json.tmp").unlink()
    assert main([str(run.folder), "checking", f"--models={tmp_path}"]) == 0
