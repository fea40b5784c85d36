"""The bound on the work that the service takes on, counted in images and in seconds, over all versions."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from app.errors import QueueFull
from app.observability.observation import CURRENT

RATE_WINDOW_S = 1.0
FIRST_WINDOW_S = 0.5  # after an idle time, when the rate is one that was expected
BUSY_S = 0.25  # of work that has to wait all the while: with less, the rate would be that of the clients
LEAST = 2  # images that may wait however slow the model is, so that there is a rate to measure
IDLE_S = 5.0  # after which a measured rate is old: what shared the cores may have gone
LONGEST_RETRY_S = 60


class Admission:
    """Places for images, each taken from admission to the answer. For the event loop's thread alone.

    No request is admitted behind work of more than `seconds`, nor one that could not be answered within `deadline`
    seconds. `expected` gives the images a second to go by before any are measured; with 0 only places count. `show` is
    called with the number of places taken, each time that it changes.
    """

    def __init__(
        self,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[int], None] | None = None,
        *,
        seconds: float = math.inf,
        deadline: float = math.inf,
        expected: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.capacity = capacity
        self.depth = 0
        self._seconds = seconds
        self._deadline = deadline
        self._expected = expected
        self._show = show
        self._clock = clock
        self._rate = 0.0  # images answered a second, while enough waited
        self._old = True  # the rate is from before an idle time
        self._answered = 0
        self._since = 0.0
        self._idle_since = -math.inf

    def check(self) -> None:
        """Raises QueueFull when no image could be admitted. Called before an upload is read, so that a refusal is
        cheap."""
        self._require_room(1)

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Holds a place for each image for the length of the block. Raises QueueFull when there are too few, or when
        the images would wait too long."""
        self._require_room(images)
        if self.depth == 0:  # idle time says nothing about the rate
            now = self._clock()
            self._old |= now - self._idle_since > IDLE_S
            self._begin_window(now)
        self._change(images)
        answered = 0
        try:
            yield
            answered = images  # a place that is given up says nothing about the rate
        finally:
            self._change(-images)
            self._count(answered)

    def rate(self) -> float:
        """Returns the images that are answered in a second when many wait: measured, or else expected; 0 if neither."""
        return max(self._rate, self._expected()) if self._old else self._rate

    def retry_after(self) -> int:
        """Returns how long the waiting images will take, in whole seconds; 1 when no rate is known."""
        rate = self.rate()
        return max(1, min(LONGEST_RETRY_S, math.ceil(self.depth / rate))) if rate else 1

    def _require_room(self, images: int) -> None:
        depth = self.depth
        if depth + images > self.capacity:
            raise self._full(f"of {self.capacity} images, there is no room for {images} more")
        if depth and (rate := self.rate()):  # whatever comes first is tried
            if depth > max(LEAST, self._seconds * rate):
                raise self._full(f"images, which take {depth / rate:.1f} s; at most {self._seconds:g} s may wait")
            if depth + images > self._deadline * rate:
                raise self._full(f"images; with {images} more they would take more than {self._deadline:g} s")

    def _change(self, images: int) -> None:
        self.depth += images
        if self._show:
            self._show(self.depth)

    def _begin_window(self, now: float) -> None:
        self._since, self._answered = now, 0

    def _count(self, images: int) -> None:
        now = self._clock()
        if self.depth == 0:
            self._idle_since = now
        if self.depth < BUSY_S * self.rate():  # the model may have waited for images
            self._begin_window(now)
            return
        self._answered += images
        elapsed = now - self._since
        if elapsed >= (FIRST_WINDOW_S if self._old else RATE_WINDOW_S):
            rate = self._answered / elapsed
            self._rate = rate if self._old else (self._rate + rate) / 2
            self._old = False
            self._begin_window(now)

    def _full(self, words: str) -> QueueFull:
        if request := CURRENT.get():
            request.drop("rejected")
        seconds = self.retry_after()
        return QueueFull(
            f"the queue holds {self.depth} {words}; try again in {seconds} s", headers={"Retry-After": str(seconds)}
        )
