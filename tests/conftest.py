"""Divides the tests among the processes of `make test`, and keeps them from the user's own folders."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Folders whose tests share a costly fixture: one process runs them all and makes the fixture once. The longest comes
# first: at the end it would keep one process busy while the others have nothing to do.
GROUPS = {
    "starter": ("tests/e2e/",),
    "trained": tuple(
        f"tests/training/{folder}/" for folder in ("cli", "exported", "heads", "network", "phases", "runs")
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    """Gives all tests of this process an empty folder of weights and an empty cache."""
    places = Path(tempfile.mkdtemp(prefix="resnext-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(places, ignore_errors=True))
    for place in ("weights", "cache"):
        os.environ[f"RESNEXT_{place.upper()}"] = str(places / place)


def group_of(node: str) -> str:
    """Returns the name of what a test, named by its node id, is run together with: a group or its module."""
    return next((name for name, folders in GROUPS.items() if node.startswith(folders)), node.partition("::")[0])


def _place(item: pytest.Item) -> int:
    """Returns when the item's group starts; the modules of training take longer than the rest."""
    group = group_of(item.nodeid)
    return [*GROUPS].index(group) if group in GROUPS else len(GROUPS) + (not group.startswith("tests/training/"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the groups that take longest first."""
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Makes a scheduler of our groups: the marks of `--dist loadgroup` have no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of  # by default a module or a class
    return scheduler
