"""`progress.jsonl`: what is read from it while it grows."""

import json
from pathlib import Path

import pytest

from tests.training.progress import epoch, step
from training.runs.progress import (
    Progress,
    ProgressWriter,
    epoch_now,
    kind_at_start,
    kind_of,
    lines,
    read_progress,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def write(path: Path, *events: dict[str, object]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_nothing_written_is_no_progress(path: Path) -> None:
    assert read_progress(path) == Progress()


def test_progress_is_the_newest_step_each_epoch_once_and_the_time_of_each_phase(path: Path) -> None:
    write(
        path,
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
    progress = read_progress(path)
    assert [(phase.name, phase.done, phase.seconds) for phase in progress.phases] == [
        ("checking", True, 2.5),
        ("training", False, 25.0 + 20.0),
    ]
    assert progress.step == step(8, epoch=2, loss=1.25).model_copy(update={"time": 1020.0})
    assert [ended.epoch for ended in progress.epochs] == [1]


def test_a_line_that_is_still_being_written_is_left_for_later(path: Path) -> None:
    write(path, {"time": 1.0, "event": "phase", "phase": "checking"})
    whole = path.stat().st_size
    with path.open("a") as file:
        file.write('{"time": 2.0, "ev')
    assert [offset for offset, _ in lines(path)] == [whole]
    assert list(lines(path, whole)) == []
    with path.open("a") as file:
        file.write('ent": "done"}\n')
    assert [json.loads(line)["time"] for _, line in lines(path, whole)] == [2.0]


def test_what_a_crash_left_of_a_line_is_cut_off(path: Path) -> None:
    write(path, {"time": 1.0, "event": "phase", "phase": "checking"})
    with path.open("a") as file:
        file.write('{"time": 2.0, "ev')
    ProgressWriter(path).done("checking")
    assert [json.loads(line)["event"] for _, line in lines(path)] == ["phase", "done"]


def test_the_epoch_that_a_training_is_in(path: Path) -> None:
    assert epoch_now(path) == 1
    write(
        path,
        {"time": 1, "event": "step", "epoch": 1},
        {"time": 2, "event": "epoch", "epoch": 1},
        {"time": 3, "event": "epoch", "epoch": 2},
    )
    assert epoch_now(path) == 3


def test_the_writers_lines_need_no_parsing(path: Path) -> None:
    writer = ProgressWriter(path)
    writer.begin("training")
    writer.files(1, 2)
    writer.step(step(1))
    writer.epoch(epoch(1))
    writer.done("training")
    written = [line for _, line in lines(path)]
    assert [kind_at_start(line) for line in written] == ["phase", "files", "step", "epoch", "done"]
    assert [kind_at_start(line) for line in written] == [json.loads(line)["event"] for line in written]


@pytest.mark.parametrize(
    "line", [b'{"event": "step", "time": 1.5}', b'{"time": 1e9, "event": "step"}', b'{ "time": 1, "event":"step" }']
)
def test_a_line_in_another_form_is_parsed(line: bytes) -> None:
    assert kind_at_start(line) is None
    assert kind_of(line) == "step"
