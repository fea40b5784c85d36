"""Rules for the order of folders and modules, which no linter holds."""

import re

import pytest

from tests.conftest import group_of
from tests.process import ROOT
from tests.structure import PACKAGES, circles, circles_of_entries, folders, imports, top

# also finds the imports of a program that a test holds as a string
LENT = re.compile(
    r"^\s*(from tests[\w.]*\.test_\w+ import|from tests[\w.]* import .*\btest_\w+|import tests[\w.]*\.test_).*", re.M
)


def test_no_test_module_lends_to_another() -> None:
    """A helper that several need lies in a module of its own beside them."""
    lent = {path.relative_to(ROOT).as_posix(): LENT.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: found[0] for path, found in lent.items() if found} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_can_be_taken_in_at_a_glance(package: str) -> None:
    assert len(top(ROOT, package)) <= 15
    lines = {path: count for folder in folders(ROOT, package) for path, count in folder.lines.items()}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_no_imports_go_round_in_a_circle() -> None:
    arrows, packages = imports(ROOT)
    assert len(arrows) > 300
    assert circles(arrows) == []
    assert circles_of_entries(arrows, packages) == {}


def test_a_circle_is_found() -> None:
    arrows = {("a.x.one", "a.y.two"), ("a.y.three", "a.x.four"), ("a.x.four", "a.z")}
    assert circles(arrows) == []  # no module reaches itself
    assert circles_of_entries(arrows, {"a", "a.x", "a.y"}) == {"a": [["x", "y"]]}
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")}) == [["a", "b", "c"]]


def test_tests_that_share_a_costly_fixture_run_in_one_process() -> None:
    needs = {"starter": r"\bstarter(_run)?: ", "trained": r"\btrained: Trained\b"}
    modules = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for group, pattern in needs.items():
        sharing = {path for path, text in modules.items() if re.search(pattern, text)}
        assert sharing
        assert {group_of(path) for path in sharing} == {group}
