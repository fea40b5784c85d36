"""The bound on the memory of bodies under way: bytes that have come and whose request is not answered yet."""

import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from app.errors import UploadsFull
from app.observability.observation import CURRENT
from training.system.memory import trim_heap

MEMORY_SHARE = 8  # of it is for uploads: a body takes three times its bytes while it is joined and split into files
MOST_AUTO = 1024**3  # 256 images of 4 MiB
SMALL_BYTES = 1024**2  # bodies up to this size may take the last quarter too, which large ones leave free
RATE_WINDOW_S = 10.0
LONGEST_RETRY_S = 60
STALLED_S = 20  # until bodies that have stopped are sent away, when nothing else gives any memory back
TRIM_BYTES = 32 * 1024**2  # as much that is given back is handed on to the system


class UploadMemory:
    """The memory for bodies under way, `capacity` bytes. For the event loop's thread alone."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.taken = 0
        self._clock = clock
        self._given_back = 0  # since _since
        self._since = clock()
        self._rate = 0.0  # bytes given back in a second
        self._untrimmed = 0

    def lease(self) -> "Lease":
        """Returns what one request takes bytes with, until it ends the lease."""
        return Lease(self)

    def trim(self) -> None:
        """Hands memory that was given back on to the system, if it is much. Called about once a second."""
        if self._untrimmed >= TRIM_BYTES and self.taken < self._untrimmed:
            self._untrimmed = 0
            trim_heap()

    def require(self, bytes: int, more: int) -> None:
        """Raises UploadsFull when there is no room for `more` bytes of a request that has taken `bytes`."""
        room = self.capacity if bytes + more <= SMALL_BYTES else self.capacity * 3 // 4
        missing = self.taken + more - room
        if missing <= 0 or self.taken == bytes:  # a request alone is never refused
            return
        if request := CURRENT.get():
            request.drop("rejected")
        seconds = self._seconds_until(missing)
        raise UploadsFull(
            f"the uploads under way hold {self.taken} of {room} bytes, there is no room for {more} more; "
            f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    def give_back(self, bytes: int) -> None:
        """Takes back what a request held."""
        self.taken -= bytes
        self._given_back += bytes
        if bytes > SMALL_BYTES:  # the heap takes small ones for the next requests
            self._untrimmed += bytes
        elapsed = self._clock() - self._since
        if elapsed >= RATE_WINDOW_S:
            self._rate = self._given_back / elapsed
            self._given_back, self._since = 0, self._clock()

    def _seconds_until(self, missing: int) -> int:
        """Returns how long it takes to have so many bytes given back, at the rate of late."""
        elapsed = self._clock() - self._since
        if self._given_back and elapsed:
            rate = self._given_back / elapsed
        else:
            rate = self._rate if elapsed < RATE_WINDOW_S else 0.0
        return max(1, min(LONGEST_RETRY_S, math.ceil(missing / rate))) if rate else STALLED_S


class Lease:
    """The bytes that one request holds."""

    __slots__ = ("_memory", "bytes")

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self.bytes = 0

    def require(self, more: int) -> None:
        """Raises UploadsFull when there is no room for so many bytes."""
        self._memory.require(self.bytes, more)

    def take(self, more: int) -> None:
        """Takes bytes that have come. Raises UploadsFull."""
        self._memory.require(self.bytes, more)
        self.bytes += more
        self._memory.taken += more

    def end(self) -> None:
        """Gives all of it back."""
        if self.bytes:
            self._memory.give_back(self.bytes)
            self.bytes = 0


def usable_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes of memory of the machine, cut by the container's limit (cgroup v2 and v1)."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word max
            found.append(int((cgroup / name).read_text()))
    return min(found)
