"""The files of a checked dataset, and their decoded pixels."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.contract.manifest import Preprocessing
from training.datasets.kept_pixels import KeptPixels
from training.datasets.layout import SPLITS, DatasetError, Sample
from training.environment import Limits
from training.errors import words_of
from training.images.decode import ImageError, decode, read_file
from training.system.durable import write_atomically
from training.system.threads import in_threads

MEMORY_BUDGET = 4 * 1024**3  # bytes of decoded pixels: 28,532 images at 224 x 224


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images of one split: uint8 [N, H, W, 3] RGB, labels int32 [N], and the files they came from, by name."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    samples: list[Sample]

    def __len__(self) -> int:
        return len(self.samples)


def load(
    samples: list[Sample],
    preprocessing: Preprocessing,
    folder: Path,
    splits: tuple[str, ...] = SPLITS,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Split]:
    """Decodes checked files, but for those whose pixels the check has kept in `folder`. Returns their images by split.

    More than `memory_budget` bytes of pixels go to an unnamed file in `folder`, which vanishes with the arrays. Raises
    DatasetError when a file to decode has changed since the check, and when `folder` has no room.
    """
    chosen = {split: [sample for sample in samples if sample.split == split] for split in splits}
    size = preprocessing.shape
    large = sum(map(len, chosen.values())) * math.prod(size) > memory_budget
    limits = Limits()
    kept = KeptPixels.of(folder, preprocessing)
    loaded = {}
    for split, part in chosen.items():
        images = _array((len(part), *size), folder if large else None)

        def decode_row(row: int, part: list[Sample] = part, images: NDArray[np.uint8] = images) -> None:
            pixels = kept.get(part[row].sha256)
            images[row] = _decode_unchanged(part[row], preprocessing, limits) if pixels is None else pixels

        with contextlib.closing(in_threads(decode_row, range(len(part)))) as rows:
            for _ in rows:
                pass
        loaded[split] = Split(images, np.array([sample.label for sample in part], np.int32), part)
    return loaded


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Chooses at most `most` of `count` rows, evenly spread. Splits are sorted by name, so each class has its share."""
    return np.linspace(0, count - 1, min(most, count), dtype=np.int64)


def write_samples(path: Path, samples: list[Sample]) -> None:
    """Writes checked files for `read_samples`. Paths may hold bytes that are not UTF-8; JSON escapes them."""
    rows = [[str(s.path), s.name, s.label, s.split, s.sha256] for s in samples]
    write_atomically(path, json.dumps(rows))  # the record of the checking phase promises that the file is there


def read_samples(path: Path) -> list[Sample]:
    """Reads the files that `write_samples` wrote. Raises DatasetError when the list is damaged."""
    try:
        return [Sample(Path(place), *rest) for place, *rest in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error}. Remove checking.json beside it, and the run checks the images again"
        ) from None


def _decode_unchanged(sample: Sample, preprocessing: Preprocessing, limits: Limits) -> NDArray[np.uint8]:
    try:
        data = read_file(sample.path)
        if hashlib.sha256(data).hexdigest() == sample.sha256:
            return decode(data, preprocessing, limits)
    except (OSError, ImageError) as error:
        raise DatasetError(
            f"{sample.path} was readable when the dataset was checked, now: {words_of(error)}"
        ) from error
    raise DatasetError(f"{sample.path} has changed since the dataset was checked: train on files that stay as they are")


def _array(shape: tuple[int, ...], folder: Path | None) -> NDArray[np.uint8]:
    """Returns an array in memory, or in an unnamed file in `folder`."""
    if folder is None:
        return np.empty(shape, np.uint8)
    size = math.prod(shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # reserved now: a disk that fills up under a memory map kills the process
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, shape=shape)
    except OSError as error:
        raise DatasetError(f"{folder} should take {size} bytes of decoded images: {words_of(error)}") from error
