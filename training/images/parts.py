"""The bound on a file's parts, which Python passes over one by one: segments, chunks, blocks, tags.

A part may take four bytes of a file and a microsecond, in which no other thread runs: 3 MB of them took 0.6 s.
"""

import io
from collections.abc import Iterable, Iterator
from typing import TypeVar

from training.errors import TrainingError

MAX_PARTS = 2**16  # a PNG of 512 MB in libpng's chunks of 8 KB has as many
MAX_READS = 4 * MAX_PARTS

T = TypeVar("T")


class TooCostly(TrainingError):
    """An image that would take too long to decode."""


def bounded(parts: Iterable[T]) -> Iterator[T]:
    """Yields the parts of a file. Raises TooCostly for more than MAX_PARTS."""
    for number, part in enumerate(parts):
        if number == MAX_PARTS:
            raise TooCostly(f"the limit is {MAX_PARTS} parts of a file, as segments and chunks, the image has more")
        yield part


class Source(io.BytesIO):
    """A file for Pillow's parsers, some of which read single bytes. `read` raises TooCostly after MAX_READS."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise TooCostly(f"the limit is {MAX_READS} reads of a header and its parts, the image needs more")
        return super().read(size)
