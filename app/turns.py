"""Who computes now: requests, or a version that is being loaded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One model run at a time. Those for requests go first, and wait for one run of a load at most.

    Two sessions that run at once on the same cores do not share them: each has a thread a core that spins for its
    neighbours. It also keeps what a load measures free of what requests do.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._requests = 0  # that wait for their turn

    @contextmanager
    def turn(self, *, for_requests: bool) -> Iterator[None]:
        """Waits for its turn, and holds it for the length of the block."""
        with self._changed:
            self._requests += for_requests
            self._changed.wait_for(lambda: not self._busy and (for_requests or not self._requests))
            self._requests -= for_requests
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
