"""The bound on the work that the service takes on, counted in images, over all versions."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from app.errors import QueueFull
from app.observability.observation import CURRENT

RATE_WINDOW_S = 1.0
LONGEST_RETRY_S = 60


class Admission:
    """Places for images, each taken from admission to the answer. For the event loop's thread alone.

    `show` is called with the number of places taken, each time that it changes.
    """

    def __init__(
        self,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[int], None] | None = None,
    ) -> None:
        self.capacity = capacity
        self.depth = 0
        self._show = show
        self._clock = clock
        self._rate = 0.0  # places freed a second, while there was work
        self._freed = 0
        self._since = 0.0

    def check(self) -> None:
        """Raises QueueFull when no place is free. Called before an upload is read, so that a refusal is cheap."""
        if self.depth >= self.capacity:
            raise self._full(1)

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Holds a place for each image for the length of the block. Raises QueueFull when too few are free."""
        if self.depth + images > self.capacity:
            raise self._full(images)
        if self.depth == 0:  # idle time says nothing about the rate
            self._since, self._freed = self._clock(), 0
        self._change(images)
        try:
            yield
        finally:
            self._change(-images)
            self._count(images)

    def retry_after(self) -> int:
        """Returns how long the waiting images will take at the measured rate, in seconds; 1 before a measurement."""
        elapsed = self._clock() - self._since
        rate = self._rate or (self._freed / elapsed if elapsed > 0 else 0)
        return max(1, min(LONGEST_RETRY_S, math.ceil(self.depth / rate))) if rate else 1

    def _change(self, images: int) -> None:
        self.depth += images
        if self._show:
            self._show(self.depth)

    def _count(self, images: int) -> None:
        self._freed += images
        elapsed = self._clock() - self._since
        if elapsed >= RATE_WINDOW_S:
            rate = self._freed / elapsed
            self._rate = (self._rate + rate) / 2 if self._rate else rate
            self._since, self._freed = self._clock(), 0

    def _full(self, images: int) -> QueueFull:
        if request := CURRENT.get():
            request.drop("rejected")
        seconds = self.retry_after()
        return QueueFull(
            f"the queue holds {self.depth} of {self.capacity} images, there is no room for {images} more; "
            f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )
