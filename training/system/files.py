"""Files: opened without waiting, the digest of their bytes, and a file in two folders."""

import errno
import hashlib
import io
import os
import shutil
import stat
from pathlib import Path


def open_file(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading. Raises OSError, also for a folder and for a pipe, which might never open."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(
            errno.EISDIR, "it should be a file, it is a named pipe, a device or the like", str(path)
        )
    return os.fdopen(descriptor, "rb")


def read_at_most(path: Path, most: int) -> bytes:
    """Returns a regular file's bytes. Raises OSError, also for a file of more than `most` bytes."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def link_or_copy(source: str, target: str) -> str:
    """Makes `target` a second name of the file `source`, or a copy of it on another file system. Returns `target`."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a regular file's bytes, in hex. Raises OSError, also for any other kind."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_without_waiting(path: str, flags: int) -> int:
    """Returns a descriptor, for `open`: to open a named pipe waits for its other end otherwise."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
