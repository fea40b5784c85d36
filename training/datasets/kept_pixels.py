"""The decoded images of a run, kept on disk: its phases decode each file once.

A few hundred photos of some megabytes take seconds to decode, and five phases need them. Many images are not kept:
decoding is a small part of the hours that their training takes.
"""

import itertools
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.contract.manifest import Preprocessing
from training.system.durable import fsync, replace_text

MOST_BYTES = 256 * 1024**2  # 1,783 images at 224 x 224
PIXELS_FILE, INDEX_FILE = "pixels.bin", "pixels.json"


class PixelWriter:
    """A writer of decoded images, each once. What it wrote counts only when its block has ended without an error.

    It keeps nothing where `images` of them would take more than `MOST_BYTES`, or the disk has no room: then the phases
    decode the files.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing, images: int) -> None:
        self.folder, self.preprocessing = folder, preprocessing
        self._size = int(np.prod(preprocessing.shape))
        self._numbers = itertools.count()
        self._rows: dict[str, int] = {}
        self._file: int | None = None
        if 0 < images * self._size <= MOST_BYTES:
            self._file = self._open(images * self._size)

    def _open(self, size: int) -> int | None:
        remove(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / PIXELS_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            os.close(file)
            remove(self.folder)
            return None
        return file

    def add(self, sha256: str, pixels: NDArray[np.uint8]) -> None:
        """Keeps the pixels, uint8 [height, width, 3], of the file with this SHA-256. Safe in threads."""
        if self._file is not None:
            row = next(self._numbers)
            os.pwrite(self._file, np.ascontiguousarray(pixels).data, row * self._size)
            self._rows[sha256] = row

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        os.close(self._file)
        if error:
            remove(self.folder)
            return
        fsync(self.folder / PIXELS_FILE)  # before the index: it promises the pixels, also after a power cut
        index = {"preprocessing": self.preprocessing.model_dump(mode="json"), "rows": self._rows}
        replace_text(self.folder / INDEX_FILE, json.dumps(index))


class KeptPixels:
    """The images that a `PixelWriter` kept in a folder, by the SHA-256 of their files."""

    def __init__(self, rows: dict[str, int], images: NDArray[np.uint8]) -> None:
        self._rows, self._images = rows, images

    @classmethod
    def of(cls, folder: Path, preprocessing: Preprocessing) -> Self:
        """Opens the folder's images. There are none where they are of another preprocessing, or not whole."""
        try:
            index = json.loads((folder / INDEX_FILE).read_bytes())
            if Preprocessing.model_validate(index["preprocessing"]) == preprocessing:
                images = np.memmap(folder / PIXELS_FILE, np.uint8, "r").reshape(-1, *preprocessing.shape)
                if max(index["rows"].values()) < len(images):
                    return cls(index["rows"], images)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return cls({}, np.empty((0, *preprocessing.shape), np.uint8))

    def get(self, sha256: str) -> NDArray[np.uint8] | None:
        """Returns the pixels of the file with this SHA-256, uint8 [height, width, 3], None where they are not kept."""
        row = self._rows.get(sha256)
        return None if row is None else self._images[row]


def copy(folder: Path, other: Path) -> None:
    """Copies what is kept in a folder into another one."""
    if (folder / INDEX_FILE).exists():
        for file in (PIXELS_FILE, INDEX_FILE):
            shutil.copyfile(folder / file, other / file)


def remove(folder: Path) -> None:
    """Deletes what was kept in a folder."""
    (folder / INDEX_FILE).unlink(missing_ok=True)
    (folder / PIXELS_FILE).unlink(missing_ok=True)
