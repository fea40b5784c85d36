"""A training run's folder: its config, the record of each phase, and the files written on the way.

    config.json  models.txt  init.json  plan.json  progress.jsonl  log.txt  samples.json  pixels.bin  pixels.json
    checkpoints/  head.npz  head/  tensorboard/  package/  report/
    checking.json  training.json  exporting.json  verifying.json  gating.json  quantizing.json  publishing.json

A phase's record is written last, in one rename: where it exists, the phase is done and is not run again. Nothing here
needs TensorFlow.
"""

import contextlib
import fcntl
import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from training.config import TrainConfig
from training.errors import TrainingError
from training.runs.progress import PHASES, Phase
from training.system.durable import replace_text
from training.system.locks import try_lock

Record = TypeVar("Record", bound=BaseModel)


class RunError(TrainingError):
    """A run's folder that cannot be used as asked."""


class Run:
    """The folder of one run. Its name is the run's name, or the job's id."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.folder = folder
        self.name = name or folder.name
        self.config_file = folder / "config.json"
        self.models_file = folder / "models.txt"
        self.progress = folder / "progress.jsonl"
        self.log = folder / "log.txt"
        self.checkpoints = folder / "checkpoints"
        self.tensorboard = folder / "tensorboard"
        self.samples = folder / "samples.json"
        self.init = folder / "init.json"  # the weights that the run starts from
        self.plan = folder / "plan.json"  # how it trains
        self.head = folder / "head.npz"  # the last layer, where nothing else is trained
        self.train_head = folder / "train_head.npz"  # the same of the training images alone: all layers go on from it
        self.val_answers = folder / "val_answers.npy"  # of heads that have not seen the validation image
        self.reference = folder / "reference.npy"  # Keras' probabilities of the validation images
        self.answers = folder / "answers.npz"  # float32's classes of val and test images, computed as they are served
        self.package = folder / "package"  # becomes the version
        self.report = self.package / "report"

    def of_head(self) -> "Run":
        """Returns the run within this one that publishes a head before all layers are trained."""
        return Run(self.folder / "head", self.name)

    def config(self) -> TrainConfig:
        """Returns the run's settings. Raises RunError when the folder holds no run."""
        try:
            return TrainConfig.model_validate_json(self.config_file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"there is no run in {self.folder}: config.json is missing") from None
        except ValidationError as error:
            raise RunError(_damaged(self.config_file, error)) from None

    def claim(self, config: TrainConfig) -> None:
        """Begins a run in the folder, with the place of the images as an absolute path.

        Raises RunError when the folder holds a run already.
        """
        if self.config_file.exists():
            raise RunError(f"{self.folder} holds a run already: go on with --resume, or name another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config.model_copy(update={"data": config.data.absolute()}))

    def write_config(self, config: TrainConfig) -> None:
        """Writes the settings that the run goes on with."""
        replace_text(self.config_file, config.model_dump_json(indent=1))

    def models(self) -> Path | None:
        """Returns the model repository that the run was begun for, None where that was not kept."""
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
        """Returns the record of a phase. Raises RunError when the phase is not done."""
        try:
            return self.read(self._record(phase), kind, "the run does this phase again")
        except FileNotFoundError:
            raise RunError(f"{self.folder} should hold {phase}.json: that phase is not done") from None

    def read(self, file: Path, kind: type[Record], without: str) -> Record:
        """Returns what a JSON file of the run holds. `without` says what the run does where the file is removed.

        Raises RunError when it is damaged, FileNotFoundError.
        """
        try:
            return kind.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise RunError(f"{_damaged(file, error)}. Remove the file, and {without}") from None

    def finish(self, phase: Phase, record: BaseModel) -> None:
        """Writes a phase's record, after which the phase is done."""
        replace_text(self._record(phase), record.model_dump_json(indent=1))

    def forget(self, *phases: Phase) -> None:
        """Removes records, so that these phases run again."""
        for phase in phases:
            self._record(phase).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, seconds: float = 15) -> Iterator[None]:
        """Keeps two processes from working in the folder at once. Raises RunError when another process does not end."""
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
        """Returns the first phase that is not done, None after the last phase."""
        return next((phase for phase in PHASES if phase not in skip and not self.done(phase)), None)

    def _record(self, phase: Phase) -> Path:
        return self.folder / f"{phase}.json"


def new_run(folder: Path, name: str) -> Run:
    """Makes a run's folder within `folder`, named by model and time; a second run of the same second gets a number."""
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
