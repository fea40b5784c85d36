"""Rules for the order of folders and modules, which no linter holds."""

import re

from tests.process import ROOT

# also finds the imports of a program that a test holds as a string
LENT = re.compile(
    r"^\s*(from tests[\w.]*\.test_\w+ import|from tests[\w.]* import .*\btest_\w+|import tests[\w.]*\.test_).*", re.M
)


def test_no_test_module_lends_to_another() -> None:
    """A helper that several need lies in a module of its own beside them."""
    lent = {path.relative_to(ROOT).as_posix(): LENT.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: found[0] for path, found in lent.items() if found} == {}
