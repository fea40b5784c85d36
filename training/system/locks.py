"""Locks on files (`flock`). The system releases them when their process ends, however it ends."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file. Waits until nobody else holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(descriptor: int, kind: int) -> bool:
    """Takes a lock, `fcntl.LOCK_EX` or `LOCK_SH`, if it is free, and says whether. Closing the file releases it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
