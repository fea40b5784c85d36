"""Counts of what a deployment has done since it went live."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.observability.timing import Timing


@dataclass(slots=True)
class Total:
    """A number of times, and their seconds in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one more."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """Sums over the requests of all protocols, and over the runs of the model.

    Runs are counted in the batcher's threads, which take turns by a lock; all else in the event loop's thread.
    """

    images: int = 0  # that were answered
    last: float = 0.0  # when the last request was answered, in seconds since the epoch
    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    infer: Total = field(default_factory=Total)
    running: threading.Lock = field(default_factory=threading.Lock)
    runs: dict[int, Total] = field(default_factory=dict)  # by the number of rows that ran, padding included

    def counted(
        self, run: Callable[[NDArray[np.uint8], bool], NDArray[np.float32]]
    ) -> Callable[[NDArray[np.uint8], bool], NDArray[np.float32]]:
        """Wraps `run`, so that each run that succeeds is counted."""

        def count(images: NDArray[np.uint8], alone: bool) -> NDArray[np.float32]:
            begun = time.perf_counter()
            output = run(images, alone)
            with self.running:
                self.runs.setdefault(len(images), Total()).add(time.perf_counter() - begun)
            return output

        return count

    def succeeded(self, images: Sequence[Timing], seconds: float) -> None:
        """Counts a request by its answered images, at least one; it took `seconds`."""
        self.images += len(images)
        self.last = time.time()
        self.success.add(seconds)
        longest = Timing.longest(images)
        self.decode.add(longest.decode)
        self.queue.add(longest.queue)
        self.infer.add(longest.infer)

    def failed(self, seconds: float) -> None:
        """Counts a request without an answered image; it took `seconds`."""
        self.fail.add(seconds)
