"""Files: their bytes, the digest of these, and a file in two folders."""

import hashlib
import os
import shutil
import stat
from io import FileIO
from pathlib import Path

from training.errors import ContractError


def link_or_copy(source: str, target: str) -> str:
    """Makes `target` a second name of the file `source`, or a copy of it on another file system. Returns `target`."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def open_regular(path: Path) -> FileIO:
    """Opens a regular file to read it. Raises ContractError for any other kind: a named pipe may never end."""
    file = FileIO(path, opener=open_without_waiting)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ContractError(f"{path} should be a file, it is a named pipe, a device or the like")
    return file


def read_regular(path: Path) -> bytes:
    """Returns the bytes of a regular file. Raises ContractError for any other kind, OSError."""
    with open_regular(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a regular file's bytes, in hex. Raises ContractError for any other kind, OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_without_waiting(path: str, flags: int) -> int:
    """Returns a descriptor, for `open`: to open a named pipe waits for its other end otherwise."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
