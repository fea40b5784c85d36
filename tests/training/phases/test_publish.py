"""A package becomes a version: by the gate's verdict, and once, even if its publication was cut off."""

import errno
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.conftest import Trained
from training.config import TrainConfig
from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.errors import ContractError
from training.phases.publish import publish
from training.runs.console import ProgressLog
from training.runs.records import PublishRecord, QuantizationRecord
from training.runs.run import Run


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models", "small")


def verified(trained: Trained, folder: Path, **rules: object) -> Run:
    """A run like the trained one up to its verification, under other rules of the gate."""
    shutil.copytree(trained.run.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    run = Run(folder)
    run.forget("gating", "publishing")
    config = trained.config.model_dump(mode="json") | {"gate": rules}
    (folder / "config.json").write_text(TrainConfig.model_validate(config).model_dump_json())
    return run


def judged(run: Run, *, passed: bool, live: int | None = None, dry_run: bool = False) -> Run:
    verdict = Verdict(
        passed=passed,
        reasons=[] if passed else ["it is not good enough"],
        notes=[],
        policy="better_or_equal",
        dry_run=dry_run,
        accuracy=0.9,
        minimum=0.1,
        live_version=live,
        live_accuracy=None,
        classes={},
    )
    run.finish("gating", verdict)
    return run


def published(run: Run, repository: ModelRepository) -> PublishRecord:
    return publish(run, repository, ProgressLog(run.progress, Console(quiet=True)))


def test_one_that_passed_becomes_active(trained: Trained, repository: ModelRepository, tmp_path: Path) -> None:
    run = judged(verified(trained, tmp_path / "run"), passed=True)
    assert published(run, repository) == PublishRecord(version=1, active=True)
    assert repository.active() == 1
    repository.verify_files(1)
    assert "model.weights.h5" in repository.manifest(1).files


def test_a_version_exists_once(trained: Trained, repository: ModelRepository, tmp_path: Path) -> None:
    """The files move from the run: not a byte is copied, and the run keeps its report."""
    run = judged(verified(trained, tmp_path / "run"), passed=True)
    before = {path.name: path.stat().st_ino for path in run.package.iterdir() if path.is_file()}
    assert "model.onnx" in before
    published(run, repository)
    version = repository.path(1)
    assert {name: (version / name).stat().st_ino for name in before} == before
    assert [path.name for path in run.package.iterdir()] == ["report"]
    assert (run.report / "confusion.png").exists()


def test_on_another_file_system_it_is_copied(
    trained: Trained, repository: ModelRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", source, target)

    monkeypatch.setattr("os.link", refuse)
    run = judged(verified(trained, tmp_path / "run"), passed=True)
    published(run, repository)
    repository.verify_files(1)
    assert [path.name for path in run.package.iterdir()] == ["report"]


def test_a_rejected_one_is_kept_aside_with_the_reason(
    trained: Trained, repository: ModelRepository, tmp_path: Path
) -> None:
    run = judged(verified(trained, tmp_path / "run"), passed=False)
    assert published(run, repository) == PublishRecord(version=1, active=False)
    assert repository.active() is None
    verdict = repository.manifest(1).gate
    assert verdict is not None
    assert verdict.reasons == ["it is not good enough"]
    repository.activate(1)  # by hand, all the same


def test_a_dry_run_publishes_nothing(trained: Trained, repository: ModelRepository, tmp_path: Path) -> None:
    run = judged(verified(trained, tmp_path / "run"), passed=True, dry_run=True)
    assert published(run, repository) == PublishRecord(version=None, active=False)
    assert repository.versions() == []


@pytest.mark.parametrize("activated", [False, True])
def test_one_that_was_cut_off_is_published_once(
    trained: Trained, repository: ModelRepository, tmp_path: Path, activated: bool
) -> None:
    """Killed after the version was there: before it became active, and before the phase's record was written."""
    run = judged(verified(trained, tmp_path / "run"), passed=True)
    published(run, repository)
    if not activated:
        (repository.folder / "ACTIVE").unlink()
        (repository.folder / "HISTORY").unlink(missing_ok=True)
    assert published(run, repository) == PublishRecord(version=1, active=True)
    assert repository.versions() == [1]
    assert repository.active() == 1


def test_it_is_judged_again_when_another_version_became_active_meanwhile(
    trained: Trained, repository: ModelRepository, tmp_path: Path
) -> None:
    """Both are the same network: the second is as good as the first, and better than nothing is not enough."""
    published(judged(verified(trained, tmp_path / "first"), passed=True), repository)
    second = judged(verified(trained, tmp_path / "second", minimum=0.99), passed=True, live=None)
    change_created(second)
    assert published(second, repository) == PublishRecord(version=2, active=False)
    verdict = second.record("gating", Verdict)
    assert verdict.live_version == 1
    assert verdict.live_accuracy == pytest.approx(verdict.accuracy)
    assert "should be at least gate.minimum" in verdict.reasons[0]
    assert repository.manifest(2).gate == verdict


def test_one_that_passes_when_judged_again_gets_its_variants(
    trained: Trained, repository: ModelRepository, tmp_path: Path
) -> None:
    """It was rejected against a version that is gone: none had been made of it."""
    run = judged(verified(trained, tmp_path / "run"), passed=False, live=7)
    (run.package / "model.int8.onnx").unlink()
    run.finish("quantizing", QuantizationRecord(variants={}, skipped=True))
    assert published(run, repository) == PublishRecord(version=1, active=True)
    assert {"fp32", "fp16"} <= set(repository.manifest(1).variants)


def change_created(run: Run) -> None:
    """The copy of a package is another package."""
    from training.runs.records import VerificationRecord

    record = run.record("verifying", VerificationRecord)
    run.finish("verifying", record.model_copy(update={"created": record.created.replace(year=2000)}))


def test_an_active_version_that_cannot_be_read_stops_it(
    trained: Trained, repository: ModelRepository, tmp_path: Path
) -> None:
    published(judged(verified(trained, tmp_path / "first"), passed=True), repository)
    (repository.path(1) / "manifest.json").write_text("{}")
    with pytest.raises(ContractError, match="is not a valid manifest"):
        published(judged(verified(trained, tmp_path / "second"), passed=True), repository)
