"""The `progress.jsonl` of a run, which says how far the run is: its writer and its readers.

Each line is a JSON object with `time` in Unix seconds and `event`: phase (a phase begins), done (it ended well), files
(read so far), step or epoch. Other processes read the file while it grows.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, Field

Phase = Literal["checking", "training", "exporting", "verifying", "gating", "quantizing", "publishing"]
PHASES: tuple[Phase, ...] = get_args(Phase)
RECORD_EVERY_S = 1.0
CHUNK_BYTES = 256 * 1024  # a line of progress has about 300
_KIND = re.compile(rb'\{"time": ?[\d.]+, ?"event": ?"(\w+)"')


def _now() -> float:
    return round(time.time(), 3)


class Step(BaseModel):
    """The newest training step. Rates are over the whole training so far, validation and checkpoints included."""

    time: float = Field(default_factory=_now, description="Unix seconds")
    epoch: int = Field(description="from 1")
    epochs: int
    step: int = Field(description="within the epoch, from 1")
    steps: int
    loss: float
    accuracy: float | None = Field(None, description="fraction of 1")
    learning_rate: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = Field(None, description="until the last epoch ends")


class Epoch(BaseModel):
    """An epoch that has ended. Accuracies are fractions of 1."""

    time: float = Field(default_factory=_now, description="Unix seconds")
    epoch: int = Field(description="from 1")
    epochs: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float | None = None


class ProgressWriter:
    """A writer that appends to a `progress.jsonl`. Each line is written at once, so a reader sees whole lines only."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._recorded = 0.0
        _drop_torn_line(path)

    def begin(self, phase: Phase) -> None:
        """Records that a phase begins."""
        self._append("phase", {"phase": phase})

    def done(self, phase: Phase) -> None:
        """Records that a phase ended well."""
        self._append("done", {"phase": phase})

    def files(self, done: int, total: int) -> None:
        """Records how many files are read, at most once a second."""
        if (now := time.monotonic()) - self._recorded >= RECORD_EVERY_S:
            self._recorded = now
            self._append("files", {"done": done, "total": total})

    def step(self, step: Step) -> None:
        """Records a training step."""
        self._append("step", step.model_dump(exclude_none=True))

    def epoch(self, epoch: Epoch) -> None:
        """Records the end of an epoch."""
        self._append("epoch", epoch.model_dump(exclude_none=True))

    def _append(self, event: str, fields: dict[str, str | int | float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"time": fields.pop("time", _now()), "event": event, **fields}) + "\n")


def _drop_torn_line(path: Path) -> None:
    """Cuts off the part of a line that a crash left."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        file.seek(max(0, path.stat().st_size - 4096))  # a line is some 300 bytes
        start, end = file.tell(), file.read()
        file.truncate(start + end.rfind(b"\n") + 1)


class PhaseProgress(BaseModel):
    """One phase of a run, with the seconds spent in it: over all attempts, each up to its last sign of life."""

    name: Phase
    done: bool = False
    seconds: float = 0


class Progress(BaseModel):
    """The progress of a run, from its `progress.jsonl`. Times are Unix seconds, accuracies fractions of 1."""

    phases: list[PhaseProgress] = Field([], description="those that have begun, in order")
    step: Step | None = Field(None, description="the newest training step")
    epochs: list[Epoch] = Field([], description="the epochs that have ended")

    def seconds_of(self, name: Phase) -> float:
        """Returns the seconds spent in a phase so far, over all attempts."""
        return sum(phase.seconds for phase in self.phases if phase.name == name)


def read_progress(path: Path) -> Progress:
    """Reads the progress so far; it is empty where nothing was written yet."""
    phases: dict[Phase, PhaseProgress] = {}
    epochs: dict[int, Epoch] = {}  # by number: an epoch that was cut off and trained again counts once
    newest: bytes | None = None
    current, since, now = None, 0.0, 0.0
    for _, line in lines(path):
        kind = kind_of(line)
        if kind == "step":
            newest = line  # only the last one is parsed
            continue
        event = json.loads(line)
        if kind == "phase":
            if current:
                current.seconds += max(now, _time(newest)) - since
            current = phases.setdefault(event["phase"], PhaseProgress(name=event["phase"]))
            since = event["time"]
        elif kind == "done" and current:
            current.done = True
        elif kind == "epoch":
            epochs[event["epoch"]] = Epoch.model_validate(event)
        now = event["time"]
    if current:
        current.seconds += max(now, _time(newest)) - since
    for phase in phases.values():
        phase.seconds = round(phase.seconds, 3)
    step = Step.model_validate_json(newest) if newest else None
    return Progress(phases=list(phases.values()), step=step, epochs=[epochs[n] for n in sorted(epochs)])


def lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields the whole lines from a byte offset on, each with the offset behind it."""
    while some := next_lines(path, offset):
        yield from some
        offset = some[-1][0]


def next_lines(path: Path, offset: int) -> list[tuple[int, bytes]]:
    """Returns the first 256 KiB of `lines` at most. A line that is still being written is left for later."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            # one read: a second read might join a line that a crash cut off with the end of the line that replaced it
            chunk = file.read(CHUNK_BYTES) or b""
    except FileNotFoundError:
        return []
    found = []
    for line in chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        found.append((offset, line))
    return found


def _time(line: bytes | None) -> float:
    return float(json.loads(line)["time"]) if line else 0.0


def kind_of(line: bytes) -> str:
    """Returns a line's `event`. The writer's lines are not parsed: a day of training writes tens of thousands."""
    return kind_at_start(line) or str(json.loads(line)["event"])


def kind_at_start(line: bytes) -> str | None:
    """Returns the `event` of a line in the form that the writer gives it, None for any other form."""
    match = _KIND.match(line)
    return match[1].decode() if match else None


def epoch_now(path: Path) -> int:
    """Returns the number of the epoch that a training is in, from 1."""
    now = 1
    for _, line in lines(path):
        if (kind := kind_of(line)) in ("step", "epoch"):
            now = json.loads(line)["epoch"] + (kind == "epoch")
    return now
