"""The starter's training, which all tests here share: it takes a minute. It runs in a terminal, as for a person."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import environment
from tests.terminal import Terminal


def command(*arguments: object, **variables: str) -> Terminal:
    """Runs a command in a terminal of 80 columns, and asserts that it succeeds."""
    with Terminal(sys.executable, "-m", "training", *arguments, environment=environment() | variables) as terminal:
        assert terminal.to_end() == 0, terminal.text
    return terminal


@dataclass(frozen=True)
class Starter:
    """`folder` holds `digits`, a run of the starter's config cut to three epochs, and the `models` it published."""

    folder: Path
    terminal: Terminal  # as the training left it


@pytest.fixture(scope="session")
def starter_run(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    work = tmp_path_factory.mktemp("e2e")
    command("dataset", "digits", work / "digits")
    terminal = command(
        *("train", work / "digits", "--config=training/jobs/starter.toml", "--epochs=3"),
        *(f"--run={work / 'run'}", f"--models={work / 'models'}"),
        NO_COLOR="1",
    )
    return Starter(work, terminal)


@pytest.fixture(scope="session")
def starter(starter_run: Starter) -> Path:
    """The folder of the starter's job."""
    return starter_run.folder
