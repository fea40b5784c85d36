"""A folder of images -> a checked, split list of files, and their decoded pixels. Nothing here needs TensorFlow.

Two layouts: `DIR/{train,val,test}/<class>/*` (`valid` and `validation` mean `val`), or `DIR/<class>/*`, which is
split here. `scan` lists, `survey` reads every file and reports, `load` decodes what was surveyed.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.contract import Preprocessing
from training.datasets.layout import (
    SPLITS,
    DatasetError,
    Sample,
    classes_of,
    few,
    labels_of,
    samples_of,
    split_folders,
    text,
)
from training.datasets.report import DatasetReport, Suspicious, Unreadable
from training.datasets.split import divide
from training.datasets.suspicion import Look, Suspicion
from training.images import ImageError, decode, read_file
from training.limits import Limits

MEMORY_BUDGET = 4 * 1024**3  # bytes of decoded pixels: 28,532 images at 224 x 224

Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Dataset:
    """What `scan` found: class names, sorted; all files, and how to split those that lie in no split."""

    folder: Path
    labels: list[str]
    samples: list[Sample]
    val_fraction: float
    test_fraction: float
    seed: int


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images of one split: uint8 [N, H, W, 3] RGB, labels int32 [N], and the files they came from, by name."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    samples: list[Sample]

    def __len__(self) -> int:
        return len(self.samples)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` rows, evenly spread."""
    return np.linspace(0, count - 1, min(most, count), dtype=np.int64)


def scan(folder: Path, val_fraction: float, test_fraction: float, seed: int) -> Dataset:
    """Lists a folder's images by class. Fractions and seed matter only where the folder has no splits of its own.

    Then the split comes with the reading, of the readable images alone. It is stratified, depends on nothing but
    names, bytes and seed, and keeps files of the same bytes together: no image is both trained on and tested on.
    Raises DatasetError.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        raise DatasetError(f"the dataset should be a folder, {folder} is {found}")
    given = split_folders(folder)
    if not given:
        classes = classes_of(folder, folder)
        labels = labels_of(folder, classes)
        return Dataset(folder, labels, samples_of(classes, labels), val_fraction, test_fraction, seed)
    by_split = {split: classes_of(given[split], folder) for split in SPLITS}
    labels = labels_of(given["train"], by_split["train"])
    for split, classes in by_split.items():
        if unknown := sorted(set(classes) - set(labels)):
            raise DatasetError(f"{given[split]} has {few(unknown)}, which {given['train']} has not: {few(labels)}")
        if missing := [label for label in labels if not classes.get(label)]:
            raise DatasetError(f"{given[split]} should have images of every class, it has none of {few(missing)}")
    samples = [sample for split, classes in by_split.items() for sample in samples_of(classes, labels, split)]
    return Dataset(folder, labels, samples, val_fraction, test_fraction, seed)


def check(
    dataset: Dataset, preprocessing: Preprocessing, *, strict: bool = False, progress: Progress | None = None
) -> DatasetReport:
    """What `survey` finds out about the whole dataset."""
    return survey(dataset, preprocessing, strict=strict, progress=progress)[0]


def survey(
    dataset: Dataset, preprocessing: Preprocessing, *, strict: bool = False, progress: Progress | None = None
) -> tuple[DatasetReport, list[Sample]]:
    """Reads and decodes every file once, keeps nothing but the findings and the readable files, hashed and split.

    `progress` gets (files read, files in all). Raises DatasetError when a class has too few readable images, with
    `strict` for any unreadable file.
    """
    samples, unreadable, suspicious = _read(dataset, preprocessing, strict, progress)
    return _report(dataset, samples, unreadable).model_copy(update={"suspicious": suspicious}), samples


def load(
    samples: list[Sample],
    preprocessing: Preprocessing,
    cache: Path,
    splits: tuple[str, ...] = SPLITS,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Split]:
    """The decoded images of surveyed files, by split.

    Pixels of more than `memory_budget` bytes go to an unnamed file in the folder `cache`, which vanishes with the
    arrays. Raises DatasetError when a file is not what was surveyed, and when `cache` has no room.
    """
    chosen = {split: [sample for sample in samples if sample.split == split] for split in splits}
    size = (preprocessing.height, preprocessing.width, 3)
    large = sum(map(len, chosen.values())) * math.prod(size) > memory_budget
    max_pixels = Limits().max_pixels
    loaded = {}
    for split, part in chosen.items():
        images = _array((len(part), *size), cache if large else None)

        def decode_row(row: int, part: list[Sample] = part, images: NDArray[np.uint8] = images) -> None:
            images[row] = _decode_unchanged(part[row], preprocessing, max_pixels)

        with contextlib.closing(_in_threads(decode_row, range(len(part)))) as rows:
            for _ in rows:
                pass
        loaded[split] = Split(images, np.array([sample.label for sample in part], np.int32), part)
    return loaded


def write_samples(path: Path, samples: list[Sample]) -> None:
    """Keeps a survey's files for `read_samples`; their paths may hold bytes that are no UTF-8, which JSON escapes."""
    rows = [[str(s.path), s.name, s.label, s.split, s.sha256] for s in samples]
    path.write_text(json.dumps(rows))


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` has kept."""
    return [Sample(Path(place), *rest) for place, *rest in json.loads(path.read_text())]


def _read(
    dataset: Dataset, preprocessing: Preprocessing, strict: bool, progress: Progress | None
) -> tuple[list[Sample], list[Unreadable], list[Suspicious]]:
    """Reads all files in threads. Returns the readable ones, hashed, in the order train, val, test and by name."""
    max_pixels = Limits().max_pixels

    def read(sample: Sample) -> tuple[Sample, Look] | Unreadable:
        try:
            data = read_file(sample.path)
            look = Look(decode(data, preprocessing, max_pixels))
        except (ImageError, OSError) as error:
            return Unreadable.of(sample.name, error)
        return replace(sample, sha256=hashlib.sha256(data).hexdigest()), look

    suspicion = Suspicion()
    unreadable: list[Unreadable] = []
    suspicious: list[Suspicious] = []
    samples: list[Sample] = []
    with contextlib.closing(_in_threads(read, dataset.samples)) as results:  # an interrupt stops the reading
        for done, result in enumerate(results, start=1):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                sample, look = result
                samples.append(sample)
                if found := suspicion.of(look, sample.name, sample.sha256):
                    suspicious.append(found)
            if progress:
                progress(done, len(dataset.samples))
    if strict and unreadable:
        raise DatasetError(f"{dataset.folder} should be readable throughout, it is not: {_named(unreadable)}")
    if samples and samples[0].split is None:
        samples = divide(samples, dataset.labels, dataset.val_fraction, dataset.test_fraction, dataset.seed)
    samples = sorted(samples, key=lambda sample: (SPLITS.index(sample.split or ""), sample.name))
    return samples, unreadable, suspicious


def _report(dataset: Dataset, samples: list[Sample], unreadable: list[Unreadable]) -> DatasetReport:
    classes = {split: dict.fromkeys(dataset.labels, 0) for split in SPLITS}
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        classes[sample.split or ""][dataset.labels[sample.label]] += 1
        same[sample.sha256].append(sample)
    for split, counts in classes.items():
        if empty := [label for label, count in counts.items() if not count]:
            raise DatasetError(
                f"{split} of {dataset.folder} has no readable image of {few(empty)}; skipped: {_named(unreadable)}"
            )
    groups = [group for group in same.values() if len(group) > 1]
    lines = sorted(f"{s.name}\0{s.sha256}\n" for s in samples)
    return DatasetReport(
        folder=text(str(dataset.folder)),
        labels=dataset.labels,
        images={split: sum(counts.values()) for split, counts in classes.items()},
        classes=classes,
        unreadable=unreadable,
        duplicates=_names(_within_splits(groups)),
        leaks=_names(group for group in groups if len({s.split for s in group}) > 1),
        conflicts=_names(group for group in groups if len({s.label for s in group}) > 1),
        fingerprint=hashlib.sha256("".join(lines).encode()).hexdigest(),
    )


def _within_splits(groups: list[list[Sample]]) -> Iterator[list[Sample]]:
    for group in groups:
        for split in SPLITS:
            if len(part := [sample for sample in group if sample.split == split]) > 1:
                yield part


def _names(groups: Iterable[list[Sample]]) -> list[list[str]]:
    return sorted(sorted(sample.name for sample in group) for group in groups)


def _named(unreadable: list[Unreadable]) -> str:
    return few([f"{bad.path} ({bad.code}: {bad.message})" for bad in unreadable], quote=False)


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """`function` of each item, in order, computed in threads; closing drops what has not begun."""
    pool = ThreadPoolExecutor(thread_name_prefix="dataset")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_unchanged(sample: Sample, preprocessing: Preprocessing, max_pixels: int) -> NDArray[np.uint8]:
    try:
        data = read_file(sample.path)
        if hashlib.sha256(data).hexdigest() == sample.sha256:
            return decode(data, preprocessing, max_pixels)
    except (OSError, ImageError) as error:
        raise DatasetError(f"{sample.path} was readable when the dataset was checked, now: {error}") from error
    raise DatasetError(f"{sample.path} has changed since the dataset was checked: train on a dataset that stays")


def _array(shape: tuple[int, ...], cache: Path | None) -> NDArray[np.uint8]:
    if cache is None:
        return np.empty(shape, np.uint8)
    size = math.prod(shape)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            # reserved now: a disk that fills up under a memory map kills the process
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, shape=shape)
    except OSError as error:
        raise DatasetError(f"{cache} should take {size} bytes of decoded images: {error.strerror}") from error
