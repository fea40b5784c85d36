"""What may lie where a small file should: the ways in which it can be damaged, or be another thing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_text("{"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "4400 digits": lambda path: path.write_text("9" * 4400),
    "another script's digit": lambda path: path.write_text("\u0661"),
    "brackets": lambda path: path.write_text("[" * 2**20),
    "17 MB": lambda path: path.write_bytes(b"1" * (17 * 2**20)),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),  # whoever opens it waits for a writer
    "a link to itself": lambda path: path.symlink_to(path.name),
}

SOME = ("garbage", "no UTF-8", "a folder", "a pipe")  # where each costs a test some time


def damage(path: Path, kind: str) -> None:
    """Puts a damaged file, or another thing, in the place of a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    DAMAGES[kind](path)
