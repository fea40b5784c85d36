"""The starter's job, shared: it takes two minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ROOT, environment


def command(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, a run of the starter's config cut to three epochs, and the repository that it published to."""
    work = tmp_path_factory.mktemp("e2e")
    command("dataset", "digits", work / "digits")
    command(
        *("train", work / "digits", "--config=training/starter.toml", "--epochs=3"),
        *(f"--run={work / 'run'}", f"--models={work / 'models'}"),
    )
    return work
