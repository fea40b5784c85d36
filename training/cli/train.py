"""`resnext train` and `resnext export`: runs the phases of a run in this process."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic_settings import CliPositionalArg

from training.cli.extra import require_extra
from training.cli.models import require_writable
from training.cli.terminal import console
from training.config import DATA, MODEL_NAME, Recipe, TrainConfig
from training.contract.intervals import Proportion
from training.contract.manifest import REPORT_FOLDER
from training.contract.names import Name
from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.environment import Places
from training.errors import TrainingError, UsageError
from training.runs.progress import PHASES, Phase, epoch_now
from training.runs.records import PublishRecord, head_that_stays
from training.runs.run import Run, RunError, new_run
from training.runs.source import pinned_source, require_weights, with_source
from training.system.interrupt import INTERRUPT
from training.weights.store import WeightsStore

RUNS = Path("runs")
MODELS = Path("models")


class Rejected(TrainingError):
    """A version that was trained but is not good enough to become active."""


class Train(Recipe):
    """Trains a classifier on a folder of images, verifies and publishes it, and makes it active if it is good enough.

    --config names a TOML file that may hold any of these settings; a flag beats the file.
    """

    data: CliPositionalArg[Path | None] = Field(None, description=DATA)  # the TOML file may hold it instead
    name: Name = Field(MODEL_NAME, description="model name in the repository")
    config: Path | None = Field(None, description="TOML file with settings of this command")
    models: Path | None = Field(None, description="folder of the model repository (default: models)")
    run: Path | None = Field(None, description="folder of this run (default: runs/NAME-DATE-TIME)")
    resume: bool = Field(False, description="continue the run in --run from its last checkpoint")
    # what was typed and what the TOML file says, without defaults and presets
    _typed: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _remembers_what_was_typed(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        command = handler(data)
        own = set(Train.model_fields) - set(TrainConfig.model_fields)
        command._typed = {name: value for name, value in dict(data).items() if name not in own}
        return command

    def cli_cmd(self) -> None:
        require_extra("train")
        if self.resume:
            self._resume()
        else:
            self._begin()

    def _begin(self) -> None:
        if "data" not in self._typed:
            raise UsageError("train needs the folder of images: resnext train DIR")
        models = self.models or MODELS
        repository = ModelRepository(models, self.name)
        config = TrainConfig.model_validate(with_source(self._typed, repository, WeightsStore(Places().weights)))
        require_weights(config)
        _check_precision(config.precision)
        require_writable(models)
        made = self.run is None or not self.run.exists()
        run = Run(self.run) if self.run else new_run(RUNS, config.name)
        INTERRUPT.says(lambda: _stopped(run, f"resnext train --run {_quoted(run)} --resume", begun=made))
        with _removed_unless_checked(run, made):
            run.claim(config)
            run.write_models(models)
            pinned_source(run, config, repository, WeightsStore(Places().weights))
            _run_phases(run, models)

    def _resume(self) -> None:
        from training.runs.resume import require_images, resume, wants_more

        if not self.run:
            raise UsageError("--resume needs --run, the folder of the run to continue")
        run = Run(self.run)
        recorded = run.config()
        config = TrainConfig.model_validate(_merged(recorded.model_dump(mode="json"), self._typed))
        if not run.next_phase() and not wants_more(run, config):
            raise RunError(f"{run.folder} is finished: there is nothing to resume. With more --epochs it trains on")
        _check_precision(config.precision)
        if "data" not in self._typed:
            require_images(run)
        resume(run, config)
        INTERRUPT.says(lambda: _stopped(run, f"resnext train --run {_quoted(run)} --resume"))
        _run_phases(run, self.models or run.models() or MODELS)


class ExportRun(BaseModel):
    """Exports, verifies and publishes the best weights that a run has so far."""

    run: CliPositionalArg[Path] = Field(description="folder of the run")
    models: Path | None = Field(None, description="folder of the model repository (default: that of the run)")

    def cli_cmd(self) -> None:
        require_extra("export")
        run = Run(self.run)
        run.config()  # there is a run
        with run.locked():
            run.forget(*PHASES[PHASES.index("exporting") :])
        INTERRUPT.says(lambda: _stopped(run, f"resnext export {_quoted(run)}", skip=("training",)))
        _run_phases(run, self.models or run.models() or MODELS, skip=("training",))


def _merged(recorded: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """Returns the recorded settings, replaced by those that were typed."""
    both = dict(recorded)
    for name, value in typed.items():
        inner = recorded.get(name)
        both[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _check_precision(precision: str) -> None:
    if precision.startswith("mixed"):
        from training.network.runtime import check_precision  # takes seconds, which the training needs anyway

        check_precision(precision)


@contextlib.contextmanager
def _removed_unless_checked(run: Run, made: bool) -> Iterator[None]:
    """Removes a run that was begun by mistake, with images or settings that would not do."""
    try:
        yield
    except BaseException:
        if not run.done("checking"):
            _remove(run, made)
        raise


def _remove(run: Run, made: bool) -> None:
    if made:
        run.remove()
    else:
        run.config_file.unlink(missing_ok=True)  # the folder existed before and is no longer a run


def _stopped(run: Run, command: str, *, begun: bool = False, skip: tuple[Phase, ...] = ()) -> str:
    """Returns the line after Ctrl-C. `begun` says that this command made the run's folder."""
    console.end_bars()
    phase = run.next_phase(skip)
    if begun and phase in (None, "checking") and not run.done("checking"):
        _remove(run, made=True)
        return "stopped in checking; nothing is kept"
    if phase is None:
        return "stopped; the run is finished"
    return f"stopped in {f'epoch {epoch_now(run.progress)}' if phase == 'training' else phase}; go on with: {command}"


def _quoted(run: Run) -> str:
    return shlex.quote(str(run.folder))


def _run_phases(run: Run, models: Path, skip: tuple[Phase, ...] = ()) -> None:
    """Runs the phases and says what was published. Raises Rejected when the gate kept the version aside."""
    from training.phases.order import run_phases

    _say(f"run {run.folder}")
    repository = ModelRepository(models, run.config().name)
    run_phases(run, repository, console, skip)
    published, verdict = run.record("publishing", PublishRecord), run.record("gating", Verdict)
    if published.version is None:
        console.print("nothing is published: gate.dry_run is set")
        return
    place = repository.path(published.version)
    _say(_pictures(place / REPORT_FOLDER))
    aside = f"version {published.version} is kept aside in {place}: {'; '.join(verdict.reasons)}"
    active = published.version
    if not published.active:
        if not (head := head_that_stays(run)):
            raise Rejected(aside)
        _say(aside)
        active, verdict = head, run.of_head().record("gating", Verdict)
    accuracy = Proportion.of(verdict.accuracy, verdict.images or 0)
    _say(f"version {active} of {repository.name} is active: test accuracy {accuracy}, in {repository.path(active)}")
    _say(_try_it(run, models, repository.name))


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)


def _pictures(report: Path) -> str:
    names = sorted(path.name for path in report.glob("*.png"))
    return f"pictures in {report}: {', '.join(names)}"


def _try_it(run: Run, models: Path, name: str) -> str:
    """Returns a command that shows the new version at work, on an image that it was not trained on."""
    from training.datasets.loading import read_samples

    image = next(sample.path for sample in read_samples(run.samples) if sample.split == "test")
    if image.is_relative_to(Path.cwd()):
        image = image.relative_to(Path.cwd())
    places = ["--models", str(models)] if models.absolute() != MODELS.absolute() else []
    if name != MODEL_NAME:
        places += ["--name", name]
    return f"try it: {shlex.join(['resnext', 'predict', str(image), *places])}"
