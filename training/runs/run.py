"""A training run's folder: its config, what each phase has left there, and what is written while it goes.

    config.json  models.txt  progress.jsonl  log.txt  checkpoints/  tensorboard/  package/  report/
    checking.json  training.json  exporting.json  verifying.json  gating.json  quantizing.json  publishing.json

A phase's record is written last, in one rename: where it lies, the phase is done and is not run again. Nothing here
needs TensorFlow.
"""

import contextlib
import fcntl
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from training.config import TrainConfig
from training.errors import TrainingError
from training.system.durable import replace_text
from training.system.locks import try_lock

Phase = Literal["checking", "training", "exporting", "verifying", "gating", "quantizing", "publishing"]
PHASES: tuple[Phase, ...] = get_args(Phase)
CHUNK_BYTES = 256 * 1024  # a line of progress has about 300

Record = TypeVar("Record", bound=BaseModel)


class RunError(TrainingError):
    """A run's folder that can not be used as asked."""


class Run:
    """The folder of one run. Its name is the run's name, or the job's id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.models_file = folder / "models.txt"
        self.progress = folder / "progress.jsonl"
        self.log = folder / "log.txt"
        self.checkpoints = folder / "checkpoints"
        self.tensorboard = folder / "tensorboard"
        self.samples = folder / "samples.json"
        self.reference = folder / "reference.npy"  # Keras' probabilities of the validation images
        self.answers = folder / "answers.npz"  # float32's classes of val and test images, as they are served
        self.package = folder / "package"  # becomes the version
        self.report = self.package / "report"

    @property
    def name(self) -> str:
        return self.folder.name

    def config(self) -> TrainConfig:
        """What the run was started with. Raises RunError when the folder holds no run."""
        try:
            return TrainConfig.model_validate_json(self.config_file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"there is no run in {self.folder}: config.json is missing") from None
        except ValidationError as error:
            raise RunError(_damaged(self.config_file, error)) from None

    def claim(self, config: TrainConfig) -> None:
        """Makes the folder this config's, with the place of the images as an absolute path.

        Raises RunError when it holds a run already.
        """
        if self.config_file.exists():
            raise RunError(f"{self.folder} holds a run already: resume it, or name another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config.model_copy(update={"data": config.data.absolute()}))

    def write_config(self, config: TrainConfig) -> None:
        """What the run goes on with."""
        replace_text(self.config_file, config.model_dump_json(indent=1))

    def models(self) -> Path | None:
        """The model repository that the run was begun for, where that was kept."""
        try:
            return Path(self.models_file.read_text().rstrip("\n"))
        except FileNotFoundError:
            return None

    def write_models(self, models: Path) -> None:
        """Keeps which model repository the run is for."""
        replace_text(self.models_file, f"{models.absolute()}\n")

    def remove(self) -> None:
        """Deletes the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def done(self, phase: Phase) -> bool:
        """Whether the phase has left its record."""
        return self._record(phase).exists()

    def record(self, phase: Phase, kind: type[Record]) -> Record:
        """What a phase has left. Raises RunError when it is not done."""
        try:
            return kind.model_validate_json(self._record(phase).read_bytes())
        except FileNotFoundError:
            raise RunError(f"{self.folder} should hold {phase}.json: that phase is not done") from None
        except ValidationError as error:
            damaged = _damaged(self._record(phase), error)
            raise RunError(f"{damaged}. Remove the file, and the run does this phase again") from None

    def finish(self, phase: Phase, record: BaseModel) -> None:
        """Writes a phase's record: the phase is done."""
        replace_text(self._record(phase), record.model_dump_json(indent=1))

    def forget(self, *phases: Phase) -> None:
        """Removes records: these phases will run again."""
        for phase in phases:
            self._record(phase).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, seconds: float = 15) -> Iterator[None]:
        """Keeps two processes from working in the folder at once. Raises RunError when another one does not end."""
        end = time.monotonic() + seconds
        with (self.folder / ".lock").open("w") as file:
            while not try_lock(file.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise RunError(f"another process works in {self.folder}")
                time.sleep(0.05)
            yield

    def busy(self) -> bool:
        """Whether a process works in the folder now."""
        try:
            with (self.folder / ".lock").open() as file:
                return not try_lock(file.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def next_phase(self, skip: tuple[Phase, ...] = ()) -> Phase | None:
        """The first phase that is not done; None after the last one."""
        return next((phase for phase in PHASES if phase not in skip and not self.done(phase)), None)

    def epoch(self) -> int:
        """The number of the epoch that a training is in, from 1."""
        now = 1
        for _, line in lines(self.progress):
            event = json.loads(line)
            if event["event"] in ("step", "epoch"):
                now = event["epoch"] + (event["event"] == "epoch")
        return now

    def _record(self, phase: Phase) -> Path:
        return self.folder / f"{phase}.json"


def new_run(folder: Path, name: str) -> Run:
    """A run in a new folder within `folder`, named by model and time; a second one of the same second has a number."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        run = Run(folder / (stem if number == 1 else f"{stem}-{number}"))
        with contextlib.suppress(FileExistsError):
            run.folder.mkdir()
            break
    return run


def _damaged(path: Path, error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{path} is damaged: {place + ': ' if place else ''}{problem['msg']}"


class PhaseProgress(BaseModel):
    """One phase of a run: seconds spent in it, over all attempts, each up to its last sign of life."""

    name: Phase
    done: bool = False
    seconds: float = 0


class Progress(BaseModel):
    """How far a run is, from its `progress.jsonl`. Times are Unix seconds, accuracies fractions of 1."""

    phases: list[PhaseProgress] = Field([], description="those that have begun, in order")
    step: dict[str, int | float] | None = Field(
        None, description="the newest: epoch, epochs, step, steps, loss, accuracy, images_per_second, eta_seconds, time"
    )
    epochs: list[dict[str, int | float]] = Field(
        [], description="of each epoch: loss, accuracy, val_loss, val_accuracy"
    )

    def seconds_of(self, name: Phase) -> float:
        """Returns the seconds spent in a phase so far, over all attempts."""
        return sum(phase.seconds for phase in self.phases if phase.name == name)


def read_progress(path: Path) -> Progress:
    """The progress so far; empty where nothing was written yet."""
    phases: dict[Phase, PhaseProgress] = {}
    epochs: dict[int, dict[str, int | float]] = {}  # by number: one that was cut off and trained again counts once
    newest: bytes | None = None
    current, since, now = None, 0.0, 0.0
    for _, line in lines(path):
        if b'"event": "step"' in line[:60]:
            newest = line  # parsed only where it matters: a day of training writes tens of thousands
            continue
        event = json.loads(line)
        if event["event"] == "phase":
            if current:
                current.seconds += max(now, _time(newest)) - since
            current = phases.setdefault(event["phase"], PhaseProgress(name=event["phase"]))
            since = event["time"]
        elif event["event"] == "done" and current:
            current.done = True
        elif event["event"] == "epoch":
            epochs[event["epoch"]] = _figures(event)
        now = event["time"]
    if current:
        current.seconds += max(now, _time(newest)) - since
    for phase in phases.values():
        phase.seconds = round(phase.seconds, 3)
    step = _figures(json.loads(newest)) if newest else None
    return Progress(phases=list(phases.values()), step=step, epochs=[epochs[n] for n in sorted(epochs)])


def lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a `progress.jsonl` from a byte offset on, each with the offset that follows it."""
    while some := next_lines(path, offset):
        yield from some
        offset = some[-1][0]


def next_lines(path: Path, offset: int) -> list[tuple[int, bytes]]:
    """As `lines`, at most the first 256 KiB of them. One that is still being written is left for later."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            # one read: a second one might join a line that a crash cut off with the end of what replaced it
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


def _figures(event: dict[str, Any]) -> dict[str, int | float]:
    return {name: value for name, value in event.items() if name != "event"}
