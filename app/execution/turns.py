"""Who computes now: requests, or a version that is being loaded."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from app.errors import LoadTimedOut
from app.watch import TURN_S, Watch

PATIENCE_S = 0.2  # that a load waits for an idle moment; after that, requests wait for one of its runs
GAP = 4.0  # times the length of its last run that a load leaves to requests
NICENESS = 10  # of a load that computes beside requests: it gets a ninth of the share of one core
RECENT_S = 1.0  # a service without a request for longer is idle, and needs no gaps


class Turns:
    """Schedules runs: those for requests as they come, those of a load one at a time, between requests and with gaps.

    Sessions that run at once on the same cores do not share them: each has a thread a core that spins for its
    neighbours. Turns also keep a load's measurements free of what requests do. A load may compute in one thread, and
    measure CPU time, `beside` requests.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
        watch: Watch | None = None,
        longest_s: float = TURN_S,
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._watch = watch or Watch()
        self._longest_s = longest_s  # that a turn may take; more is a run that hangs
        self._changed = threading.Condition()
        self.running = 0  # requests whose turn it is
        self.waiting = 0  # requests
        self.insisting = False  # a load's patience has ended: requests wait for its run
        self.next_load = 0.0  # by the clock
        self._loading = False
        self._last_request = -RECENT_S

    @contextmanager
    def for_request(self) -> Iterator[None]:
        """Runs the block for a request, after one run of a load at most."""
        with self._changed:
            if self._loading or self.insisting:
                self.waiting += 1
                with self._watch.begin("turn", "a run for requests, which waits for one of a load,", self._longest_s):
                    self._changed.wait_for(lambda: not (self._loading or self.insisting))
                self.waiting -= 1
            self.running += 1
        try:
            yield
        finally:
            with self._changed:
                self.running -= 1
                self._last_request = self._clock()
                if not self.running:
                    self._changed.notify_all()

    @contextmanager
    def for_load(self) -> Iterator[None]:
        """Runs the block for a load, at an idle moment or when its patience ends.

        Raises LoadTimedOut when a run that hangs holds the turn.
        """
        with self._changed:
            self._await_idle()
            self._loading, self.insisting = True, False
            begun = self._clock()
        try:
            yield
        finally:
            with self._changed:
                self._loading = False
                now = self._clock()
                self.next_load = now + GAP * (now - begun) if self._busy(now) else now
                self._changed.notify_all()

    @contextmanager
    def beside(self, count: int) -> Iterator[ThreadPoolExecutor]:
        """Yields `count` threads for a load. While requests come, these threads have less weight than all others."""
        with self._changed:
            busy = self._busy(self._clock())
        with ThreadPoolExecutor(count, "load", initializer=_step_back if busy else None) as threads:
            yield threads

    def _busy(self, now: float) -> bool:
        return now - self._last_request < RECENT_S or self.waiting > 0

    def _await_idle(self) -> None:
        self._require(lambda: not self._loading)
        while (early := self.next_load - self._clock()) > 0:
            self._changed.wait(early)
        idle = self._changed.wait_for(lambda: not (self.running or self.waiting), self._patience_s)
        if not idle:
            self.insisting = True
            try:
                self._require(lambda: not self.running)
            except LoadTimedOut:
                self.insisting = False
                self._changed.notify_all()
                raise

    def _require(self, turn: Callable[[], bool]) -> None:
        if not self._changed.wait_for(turn, self._longest_s):
            raise LoadTimedOut(f"a run that has not ended in {self._longest_s:g} s holds up the load")


def _step_back() -> None:
    """Lowers this thread's priority for good: an unprivileged thread cannot raise it again."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
