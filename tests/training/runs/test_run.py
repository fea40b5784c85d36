"""A run's folder: the records of its phases, and who may work in it."""

import multiprocessing
from pathlib import Path

import pytest

from training.runs.records import PublishRecord
from training.runs.run import Run, RunError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_record_is_read_back_and_can_be_forgotten(run: Run) -> None:
    with pytest.raises(RunError, match=r"publishing\.json: that phase is not done"):
        run.record("publishing", PublishRecord)
    run.finish("publishing", PublishRecord(version=3, active=True))
    assert run.done("publishing")
    assert run.record("publishing", PublishRecord).version == 3
    (run.folder / "publishing.json").write_text("")
    with pytest.raises(
        RunError, match=r"publishing\.json is damaged: .*\. Remove the file, and the run does this phase"
    ):
        run.record("publishing", PublishRecord)
    run.forget("gating", "publishing")
    assert not run.done("publishing")


def test_one_process_at_a_time_works_in_a_run(run: Run) -> None:
    assert not run.busy()
    with run.locked():
        assert run.busy()
        with (
            multiprocessing.get_context("spawn").Pool(1) as pool,
            pytest.raises(RunError, match="another process works"),
        ):
            pool.apply(_lock, (run.folder,))
    assert not run.busy()


def _lock(folder: Path) -> None:
    with Run(folder).locked(seconds=0):
        pass
