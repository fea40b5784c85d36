"""`resnext runs`: the trainings that were begun here, how each ended, and the disk space that they take."""

import json
import os
import sys
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliSubCommand

from training.cli import terminal
from training.cli.models import dataset_of
from training.cli.terminal import Heading, console
from training.contract.verdict import Verdict
from training.errors import TrainingError
from training.runs.progress import read_progress
from training.runs.records import PublishRecord
from training.runs.run import Run, RunError

COLUMNS = (
    Heading("run and its data", "text"),
    Heading("begun", "words"),
    Heading("state", "words"),
    Heading("epochs", "figures"),
    Heading("accuracy", "figures"),
    Heading("size", "figures"),
)


class RunsFolder(BaseModel):
    """A command about a folder of runs."""

    folder: Path = Field(Path("runs"), description="folder of the runs")

    def runs(self) -> list[Run]:
        """Returns the runs, the newest first. Raises RunError when the folder does not exist."""
        if not self.folder.is_dir():
            raise RunError(f"there are no runs: the folder {self.folder} does not exist; --folder names another")
        found = [Run(path) for path in self.folder.iterdir() if (path / "config.json").exists()]
        return sorted(found, key=begun, reverse=True)


class RunEntry(BaseModel):
    """One run in the list."""

    run: str
    begun: datetime
    state: str
    data: str
    epochs: int = 0
    most_epochs: int | None = None
    test_accuracy: float | None = None
    version: int | None = None
    bytes: int
    damage: str | None = None

    def row(self) -> tuple[str, ...]:
        """Returns the cells of the run's row."""
        return (
            f"{self.run}\n{self.data}",
            terminal.moment(self.begun),
            self.state,
            f"{self.epochs}/{self.most_epochs or '?'}",
            "-" if self.test_accuracy is None else f"{self.test_accuracy:.4f}",
            terminal.size(self.bytes),
        )


class ListRuns(RunsFolder):
    """Lists the runs, the newest first."""

    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        entries = [entry_of(run) for run in self.runs()]
        if self.json_:
            sys.stdout.write(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2) + "\n")
            return
        terminal.table(COLUMNS, [entry.row() for entry in entries])
        for entry in entries:
            if entry.damage:
                console.print(entry.damage, highlight=False, markup=False)
        total = terminal.size(sum(entry.bytes for entry in entries))
        console.print(
            f"{len(entries)} {'run' if len(entries) == 1 else 'runs'}, {total} in {self.folder}",
            highlight=False,
            markup=False,
        )


class PruneRuns(RunsFolder):
    """Deletes old runs and their folders. The versions that they published stay, and so does a run that is busy."""

    keep: int = Field(5, ge=0, description="how many runs stay, the newest")

    def cli_cmd(self) -> None:
        gone = [run for run in self.runs()[self.keep :] if not run.busy()]
        freed = sum(map(_bytes, gone))
        for run in gone:
            run.remove()
        names = ", ".join(run.name for run in gone)
        console.print(f"deleted runs: {names}; {terminal.size(freed)}" if gone else "deleted runs: none", markup=False)


class RunsCommand(BaseModel):
    """Lists the trainings that were begun here, and deletes old ones."""

    list: CliSubCommand[ListRuns]
    prune: CliSubCommand[PruneRuns]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def begun(run: Run) -> datetime:
    """Returns when the run was begun."""
    # a resume replaces config.json; models.txt is from the start
    first = run.models_file if run.models_file.exists() else run.config_file
    return datetime.fromtimestamp(first.stat().st_mtime).astimezone()


def entry_of(run: Run) -> RunEntry:
    """Returns a run's row. A run whose files are damaged is listed as well."""
    entry = RunEntry(run=run.name, begun=begun(run), state="", data="-", bytes=_bytes(run))
    try:
        config, epochs = run.config(), read_progress(run.progress).epochs
        entry.data = dataset_of(str(config.data))
        entry.epochs, entry.most_epochs = len(epochs), config.epochs
        if epochs and not config.epochs:
            entry.most_epochs = epochs[-1].epochs
        if run.done("gating"):
            entry.test_accuracy = run.record("gating", Verdict).accuracy
        if run.done("publishing"):
            entry.version = run.record("publishing", PublishRecord).version
        entry.state = _state(run)
    except TrainingError as error:
        entry.state, entry.damage = "damaged", str(error)
    return entry


def _state(run: Run) -> str:
    if phase := run.next_phase():
        return phase if run.busy() else f"stopped in {phase}"
    made = run.record("publishing", PublishRecord)
    if made.version is None:
        return "dry run"
    return f"version {made.version}" + ("" if made.active else ", rejected")


def _bytes(run: Run) -> int:
    """Returns the bytes that the folder takes on the disk, hard links into a repository included."""
    total = 0
    for parent, _, files in os.walk(run.folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # a running training replaces its checkpoints
                continue
    return total
