"""The members of an archive: names as the archive has them, bytes counted as they come out."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from training.errors import ArchiveTooLarge

MAX_RATIO = 200  # unpacked to packed bytes; images hardly shrink, tar's padding of small files may by 50
HARMLESS_BYTES = 64 * 1024**2  # the ratio counts beyond this
CHUNK_BYTES = 1024**2
PACK_AGAIN = "pack it again with Deflate, or as tar"


class Stream(Protocol):
    """The part of a file that reading an archive needs."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Member:
    """One entry as the archive has it. `kind` is file or folder, or names a refused kind, as "a link".

    `copied` is set for a hard link: the name of the earlier member that it leads to. `guessed` says that the encoding
    of the name is a guess.
    """

    name: str
    kind: str
    open: Callable[[], Stream]
    copied: str | None = None
    guessed: bool = False


class Meter:
    """A count of the bytes that come out of an archive, whether they are kept or not."""

    def __init__(self, limit: int, archive_bytes: int) -> None:
        self._limit = limit
        self._archive_bytes = archive_bytes
        self._bytes = 0

    def count(self, more: int) -> None:
        self._bytes += more
        if self._bytes > self._limit:
            raise ArchiveTooLarge(f"an archive should unpack to at most {self._limit} bytes, this one has more")
        if self._bytes > max(HARMLESS_BYTES, MAX_RATIO * self._archive_bytes):
            raise ArchiveTooLarge(
                f"an archive should unpack to at most {MAX_RATIO} times its size, this one has {self._archive_bytes} "
                f"bytes and gave {self._bytes} before it was stopped"
            )


class Metered(io.RawIOBase):
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._meter.count(len(data))
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()
