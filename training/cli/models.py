"""`resnext models`: the versions of a model, which one is active, and what was said of each."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from training.cli import terminal
from training.cli.terminal import Heading, console
from training.config import MODEL_NAME
from training.contract.intervals import Proportion
from training.contract.manifest import Manifest
from training.contract.repository import ModelRepository
from training.datasets.store import IMAGES_FOLDER
from training.errors import ContractError, TrainingError

COLUMNS = (
    Heading("version", "figures"),
    Heading("state", "words"),
    Heading("created", "words"),
    Heading("dataset", "text"),
    Heading("classes", "figures"),
    Heading("test accuracy\n(95 %)", "whole"),
    Heading("started\nfrom", "words"),
)


class OneModel(BaseModel):
    """A command about one model of a repository."""

    models: Path = Field(Path("models"), description="folder of the model repository")
    name: str = Field(MODEL_NAME, description="model name in the repository")

    @property
    def repository(self) -> ModelRepository:
        """Raises ContractError when there is no such model."""
        repository = ModelRepository(self.models, self.name)
        if not repository.folder.is_dir():
            raise ContractError(f"there is no model {self.name!r} in {self.models}: {_others(self.models)}")
        return repository


class ListVersions(OneModel):
    """Lists the versions: which is active, which were rejected or taken back and why, and how good each is."""

    def cli_cmd(self) -> None:
        repository = self.repository
        terminal.table(COLUMNS, [_row(repository, version) for version in repository.versions()])
        with contextlib.suppress(ContractError):  # it is among the faults
            for version, failure in sorted(repository.failures().items()):
                line = f"version {version} was taken back {terminal.moment(failure.time)}: {failure.reason}"
                console.print(line, markup=False, highlight=False)
        for fault in dict.fromkeys(_faults(repository)):
            terminal.error(fault)


class ShowVersion(OneModel):
    """Prints a version's manifest."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        sys.stdout.write(self.repository.manifest(self.version).model_dump_json(indent=2) + "\n")


class ActivateVersion(OneModel):
    """Makes a version active, a newer or an older one. A service that runs takes it over."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        repository = self.repository
        repository.verify_files(self.version)
        repository.activate(self.version)
        console.print(f"version {self.version} of {self.name} is active", highlight=False, markup=False)


class RollBack(OneModel):
    """Makes the version active that was active before. A second rollback goes back one more."""

    reason: str | None = Field(
        None, description="why: the version is marked as failed, and no rollback comes back to it"
    )

    def cli_cmd(self) -> None:
        repository = self.repository
        active, earlier = active_version(repository), repository.predecessor()
        if earlier is None:
            raise ContractError(f"version {active} of {self.name!r} is active, and there is none to go back to")
        repository.verify_files(earlier)
        now = repository.roll_back(earlier, bad={active: self.reason} if self.reason else None)
        console.print(f"version {now} of {self.name} is active", highlight=False, markup=False)


class PruneVersions(OneModel):
    """Deletes versions: first rejected and failed ones, then the oldest.

    The active version, the one that was active before it, and the newest always stay.
    """

    keep: int = Field(5, ge=1, description="how many versions stay")

    def cli_cmd(self) -> None:
        gone = self.repository.prune(self.keep)
        console.print(f"deleted versions: {', '.join(map(str, gone)) or 'none'}")


class ModelsCommand(BaseModel):
    """Lists the versions of a model, shows one, makes one active."""

    list: CliSubCommand[ListVersions]
    show: CliSubCommand[ShowVersion]
    activate: CliSubCommand[ActivateVersion]
    rollback: CliSubCommand[RollBack]
    prune: CliSubCommand[PruneVersions]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def active_version(repository: ModelRepository) -> int:
    """Returns the version that is active. Raises ContractError when none is."""
    active = repository.active()
    if active is None:
        raise ContractError(f"no version of {repository.name!r} is active in {repository.folder}: train one first")
    return active


def require_writable(models: Path) -> None:
    """Raises TrainingError for a repository that no version could be published into: before the work, not after."""
    place = next(folder for folder in (models.absolute(), *models.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        why = "cannot be written to" if place.is_dir() else "is no folder"
        raise TrainingError(f"--models should be a folder that versions can be published into; {place} {why}")


def dataset_of(path: str) -> str:
    """Returns a person's name for the data in this folder: `photos`, or `photos@3` for the third upload."""
    parts = Path(path).parts
    if parts[-1:] == (IMAGES_FOLDER,) and len(parts) > 2 and parts[-2].isdigit():
        return f"{parts[-3]}@{parts[-2]}"
    return parts[-1] if parts else path


def _others(models: Path) -> str:
    """Returns what the repository has instead, and what to do."""
    if not models.is_dir():
        why = "that is not a folder" if models.exists() else "that folder does not exist"
        return f"{why}. resnext train DIR makes it; --models names another"
    found = sorted(path.name for path in models.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"it has {', '.join(found)} (--name)" if found else "it is empty. resnext train DIR makes one"


def _faults(repository: ModelRepository) -> Iterator[str]:
    """Yields what is damaged or cannot be read. The rest of the list is right all the same."""
    manifests = [functools.partial(repository.manifest, version) for version in repository.versions()]
    reads: list[Callable[[], object]] = [repository.active, repository.failures, repository.predecessors, *manifests]
    for read in reads:
        try:
            read()
        except ContractError as error:
            yield str(error)


def _state(repository: ModelRepository, version: int) -> str:
    try:
        return repository.state(version)
    except ContractError:
        return "unknown"


def _row(repository: ModelRepository, version: int) -> tuple[str, ...]:
    state = _state(repository, version)
    try:
        manifest = repository.manifest(version)
    except ContractError:  # a copy that is under way, or damage: the other versions are listed all the same
        return str(version), state, "-", "no valid manifest.json", "-", "-", "-"
    return (
        str(version),
        state,
        terminal.moment(manifest.created),
        dataset_of(manifest.dataset.path) if manifest.dataset else "-",
        str(len(manifest.labels)),
        _accuracy(manifest),
        _started_from(manifest),
    )


def _accuracy(manifest: Manifest) -> str:
    """Returns the accuracy with its 95 % interval: two versions within it may well be equally good.

    A dash stands for published weights, which no labeled images measured here.
    """
    test = manifest.metrics.get("test")
    if test is None:
        return "-"
    low, high = Proportion.of(test.accuracy, test.images).interval
    return f"{test.accuracy:.4f}\n{low:.2f} to {high:.2f}"


def _started_from(manifest: Manifest) -> str:
    """Returns the version, or the weights, that the version began with; a dash for random weights."""
    return str(manifest.init_version or manifest.init or "-")
