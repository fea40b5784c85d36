"""The locked packages, by lock."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
_pinned = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def locks() -> list[Path]:
    """Returns the files of `requirements/` that pin packages with their hashes."""
    return [file for file in sorted(LOCKS.glob("*.txt")) if "--hash=" in file.read_text()]


def pinned(lock: Path) -> set[tuple[str, str]]:
    """Returns name and version of each package in a lock."""
    return set(_pinned.findall(lock.read_text()))
