"""`resnext models`: the versions of a model, which one is live, and what was said of each."""

import sys
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
from training.errors import ContractError

COLUMNS = (
    Heading("version", "figures"),
    Heading("state", "words"),
    Heading("created", "words"),
    Heading("dataset", "text"),
    Heading("classes", "figures"),
    Heading("accuracy on\nthe test, 95 %", "whole"),
    Heading("started from", "words"),
)


class Repository(BaseModel):
    """Which model repository."""

    models: Path = Field(Path("models"), description="folder of the model repository")
    name: str = Field(MODEL_NAME, description="model name in the repository")

    @property
    def repository(self) -> ModelRepository:
        """Raises ContractError when there is no such model."""
        repository = ModelRepository(self.models, self.name)
        if not repository.folder.is_dir():
            raise ContractError(f"there is no model {self.name!r} in {self.models}; {_others(self.models)}")
        return repository


class List(Repository):
    """Lists the versions: which is live, which were rejected or taken back and why, and how good each is."""

    def cli_cmd(self) -> None:
        repository = self.repository
        terminal.table(COLUMNS, [_row(repository, version) for version in repository.versions()])
        for version, failure in sorted(repository.failures().items()):
            told = f"version {version} was taken back {terminal.moment(failure.time)}: {failure.reason}"
            console.print(told, markup=False, highlight=False)


class Show(Repository):
    """Prints a version's manifest."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        sys.stdout.write(self.repository.manifest(self.version).model_dump_json(indent=2) + "\n")


class Activate(Repository):
    """Makes a version live, forward or back."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        repository = self.repository
        repository.verify_files(self.version)
        repository.activate(self.version)
        console.print(f"version {self.version} of {self.name} is live")


class Rollback(Repository):
    """Makes the version live that was live before; twice goes two back."""

    reason: str | None = Field(None, description="why: marks the version as failed, and no rollback comes back to it")

    def cli_cmd(self) -> None:
        repository = self.repository
        live, earlier = live_version(repository), repository.predecessor()
        if earlier is None:
            raise ContractError(f"version {live} of {self.name!r} is live, and there is none to go back to")
        repository.verify_files(earlier)
        now = repository.roll_back(earlier, bad={live: self.reason} if self.reason else None)
        console.print(f"version {now} of {self.name} is live")


class Prune(Repository):
    """Deletes versions, rejected and failed ones first, then the oldest.

    Never the live one, the one that was live before it, and the newest.
    """

    keep: int = Field(5, ge=1, description="how many versions stay")

    def cli_cmd(self) -> None:
        gone = self.repository.prune(self.keep)
        console.print(f"deleted versions: {', '.join(map(str, gone)) or 'none'}")


class Models(BaseModel):
    """The model repository: what is published, what is live."""

    list: CliSubCommand[List]
    show: CliSubCommand[Show]
    activate: CliSubCommand[Activate]
    rollback: CliSubCommand[Rollback]
    prune: CliSubCommand[Prune]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def live_version(repository: ModelRepository) -> int:
    """The version that is live. Raises ContractError when none is."""
    live = repository.active()
    if live is None:
        raise ContractError(f"no version of {repository.name!r} is live in {repository.folder}; train one first")
    return live


def dataset_of(path: str) -> str:
    """What a person calls the data in this folder: `photos`, or `photos@3` for the third upload."""
    parts = Path(path).parts
    if parts[-1:] == (IMAGES_FOLDER,) and len(parts) > 2 and parts[-2].isdigit():
        return f"{parts[-3]}@{parts[-2]}"
    return parts[-1] if parts else path


def _others(models: Path) -> str:
    if not models.is_dir():
        return "that folder is not there" if not models.exists() else "that is no folder"
    found = sorted(path.name for path in models.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"it has {', '.join(found)}" if found else "resnext train DIR makes one"


def _row(repository: ModelRepository, version: int) -> tuple[str, ...]:
    try:
        manifest = repository.manifest(version)
    except ContractError:  # a copy that is under way, or damage: the other versions are listed all the same
        return str(version), repository.state(version), "-", "no valid manifest.json", "-", "-", "-"
    return (
        str(version),
        repository.state(version),
        terminal.moment(manifest.created),
        dataset_of(manifest.dataset.path),
        str(len(manifest.labels)),
        _accuracy(manifest),
        _started_from(manifest),
    )


def _accuracy(manifest: Manifest) -> str:
    """With its 95 % interval: two versions that differ by less than that may well be equally good."""
    test = manifest.metrics["test"]
    low, high = Proportion.of(test.accuracy, test.images).interval
    return f"{test.accuracy:.4f}\n{low:.2f} to {high:.2f}"


def _started_from(manifest: Manifest) -> str:
    """The version whose weights the training began with; a dash for random ones."""
    return str(manifest.init_version or "-")
