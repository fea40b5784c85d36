"""Files that are either whole or not there, even after a power cut."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes the file in one rename: a reader, or a restart after a crash, finds the new text or the old, whole."""
    temporary = _temporary(path)
    temporary.write_text(text)
    temporary.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Writes the file in one rename and waits until the disk has it: it is whole even after a power cut."""
    temporary = _temporary(path)
    temporary.write_text(text)
    fsync(temporary)
    temporary.rename(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Waits until the disk has a file's bytes, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
