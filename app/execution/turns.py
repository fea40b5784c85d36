"""Who computes now: requests, or a version that is being loaded."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

PATIENCE_S = 0.2  # that a load waits for an idle moment; then requests wait for one of its runs
GAP = 4.0  # times the length of its last run that a load leaves to requests
NICENESS = 10  # of what computes beside requests: a ninth of the share of one core
RECENT_S = 1.0  # since the last request: a service that is idle for longer needs no gaps


class Turns:
    """Runs for requests go as they come; those of a load one at a time, between them, with gaps.

    Sessions that run at once on the same cores do not share them: each has a thread a core that spins for its
    neighbours. It also keeps what a load measures free of what requests do. What one thread computes, and measures in
    CPU time, may go on `beside` them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0  # for requests
        self._waiting = 0  # requests
        self._loading = False
        self._insisting = False
        self._last_request = -RECENT_S
        self._next_load = 0.0

    @contextmanager
    def for_request(self) -> Iterator[None]:
        """Waits for one run of a load at most."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not (self._loading or self._insisting))
            self._waiting -= 1
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._last_request = self._clock()
                if not self._running:
                    self._changed.notify_all()

    @contextmanager
    def for_load(self) -> Iterator[None]:
        """Waits for an idle moment, for so long."""
        with self._changed:
            self._await_idle()
            self._loading, self._insisting = True, False
            begun = self._clock()
        try:
            yield
        finally:
            with self._changed:
                self._loading = False
                now = self._clock()
                self._next_load = now + GAP * (now - begun) if self._busy(now) else now
                self._changed.notify_all()

    @contextmanager
    def beside(self, count: int) -> Iterator[ThreadPoolExecutor]:
        """So many threads for a load; of less weight than all others where there are requests."""
        with self._changed:
            busy = self._busy(self._clock())
        with ThreadPoolExecutor(count, "load", initializer=_step_back if busy else None) as threads:
            yield threads

    def _busy(self, now: float) -> bool:
        return now - self._last_request < RECENT_S or self._waiting > 0

    def _await_idle(self) -> None:
        self._changed.wait_for(lambda: not self._loading)
        while (early := self._next_load - self._clock()) > 0:
            self._changed.wait(early)
        idle = self._changed.wait_for(lambda: not (self._running or self._waiting), PATIENCE_S)
        if not idle:
            self._insisting = True
            self._changed.wait_for(lambda: not self._running)


def _step_back() -> None:
    """For good: an unprivileged thread can not come forward again."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
