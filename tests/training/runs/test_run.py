"""A run's folder: what is read from it while it is being written, and who may work in it."""

import json
import multiprocessing
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.progress import epoch, step
from training.runs.console import ProgressLog
from training.runs.progress import Progress, lines, read_progress
from training.runs.records import PublishRecord
from training.runs.run import Run, RunError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def write(run: Run, *events: dict[str, object]) -> None:
    with run.progress.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_nothing_written_is_no_progress(run: Run) -> None:
    assert read_progress(run.progress) == Progress()


def test_progress_is_the_newest_step_each_epoch_once_and_the_time_of_each_phase(run: Run) -> None:
    write(
        run,
        {"time": 100.0, "event": "phase", "phase": "checking"},
        {"time": 102.5, "event": "done", "phase": "checking"},
        {"time": 110.0, "event": "phase", "phase": "training"},
        {"time": 120.0, "event": "step", **step(9, loss=2.0).model_dump(exclude={"time"})},
        {"time": 130.0, "event": "epoch", **epoch(1).model_dump(exclude={"time"})},
        {"time": 135.0, "event": "step", **step(3, epoch=2, loss=1.5).model_dump(exclude={"time"})},
        # killed; trained again from a checkpoint before the first epoch's end
        {"time": 1000.0, "event": "phase", "phase": "training"},
        {"time": 1010.0, "event": "epoch", **epoch(1).model_dump(exclude={"time"})},
        {"time": 1020.0, "event": "step", **step(8, epoch=2, loss=1.25).model_dump(exclude={"time"})},
    )
    progress = read_progress(run.progress)
    assert [(phase.name, phase.done, phase.seconds) for phase in progress.phases] == [
        ("checking", True, 2.5),
        ("training", False, 25.0 + 20.0),
    ]
    assert progress.step == step(8, epoch=2, loss=1.25).model_copy(update={"time": 1020.0})
    assert [ended.epoch for ended in progress.epochs] == [1]


def test_a_line_that_is_still_being_written_is_left_for_later(run: Run) -> None:
    write(run, {"time": 1.0, "event": "phase", "phase": "checking"})
    whole = run.progress.stat().st_size
    with run.progress.open("a") as file:
        file.write('{"time": 2.0, "ev')
    assert [offset for offset, _ in lines(run.progress)] == [whole]
    assert list(lines(run.progress, whole)) == []
    with run.progress.open("a") as file:
        file.write('ent": "done"}\n')
    assert [json.loads(line)["time"] for _, line in lines(run.progress, whole)] == [2.0]


def test_what_a_crash_left_of_a_line_is_cut_off(run: Run) -> None:
    write(run, {"time": 1.0, "event": "phase", "phase": "checking"})
    with run.progress.open("a") as file:
        file.write('{"time": 2.0, "ev')
    log = ProgressLog(run.progress, Console(quiet=True))
    log.done("checking")
    assert [json.loads(line)["event"] for _, line in lines(run.progress)] == ["phase", "done"]


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
