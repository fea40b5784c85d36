"""Locks on files (`flock`). The system releases them when their process ends, however it ends."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from training.errors import StorageUnavailable
from training.system.files import open_without_waiting

POLL_S = 0.05
LONGEST_S = 600.0  # what holds a lock hashes, renames or removes files: minutes on a slow disk


class LockHeld(StorageUnavailable):
    """A lock that another process has kept for too long. The message names the file, and the process if it is known."""


@contextlib.contextmanager
def exclusive(path: Path, seconds: float = LONGEST_S) -> Iterator[None]:
    """Holds the lock file. Waits for up to `seconds` until nobody else holds it. Raises LockHeld."""
    with open(path, "w", opener=open_without_waiting) as file:
        end = time.monotonic() + seconds
        while not try_lock(file.fileno(), fcntl.LOCK_EX):  # polled, since a wait in the kernel has no limit
            if time.monotonic() > end:
                name = f"{path.parent.name}/{path.name}"  # clients see it
                raise LockHeld(f"{name} has been held by {_holder(path)} for more than {seconds:g} s")
            time.sleep(POLL_S)
        yield


def try_lock(descriptor: int, kind: int) -> bool:
    """Takes a lock, `fcntl.LOCK_EX` or `LOCK_SH`, if it is free, and says whether. Closing the file releases it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    """Returns words for the process that holds a lock on the file: `1: FLOCK  ADVISORY  WRITE 321 fe:01:4711 0 EOF`."""
    with contextlib.suppress(OSError):  # only Linux has it
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                return f"process {fields[4]}"
    return "another process"
