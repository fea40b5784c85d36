"""The bound on the memory of all images that a process decodes at one time."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

SMALL = 16 * 1024**2  # bytes: fewer are not counted. A photo of 4 megapixels takes as many, most take less


class Budget:
    """Memory in bytes that threads share, handed out in the order in which they ask. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._waiting: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    @contextlib.contextmanager
    def hold(self, amount: int, limit: int) -> Iterator[None]:
        """Waits until others have left so much of `limit`, and holds it for the length of the block.

        More than `limit` is held alone. A thread that holds some must not ask for more.
        """
        if amount < SMALL:
            yield
            return
        with self._changed:
            turn = object()
            self._waiting.append(turn)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and (not self._taken or self._taken + amount <= limit)
                )
                self._taken += amount
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
