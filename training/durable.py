"""Files that are whole or not there, also after a power cut."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes the file in one rename, and waits until the disk has it."""
    temporary = path.with_name(f".{path.name}.tmp")
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
