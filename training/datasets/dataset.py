"""A folder of images -> a checked, split list of files, and their decoded pixels. Nothing here needs TensorFlow.

Two layouts: `DIR/{train,val,test}/<class>/*`, of which val and test may be missing, or `DIR/<class>/*`; what is missing
is dealt here. `scan` lists, `survey` reads every file and reports, `load` decodes what was surveyed.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.contract.manifest import Preprocessing
from training.datasets.layout import (
    SPLITS,
    DatasetError,
    Layout,
    Sample,
    classes_of,
    few,
    is_picture,
    labels_of,
    layout_of,
    samples_of,
    text,
)
from training.datasets.report import DatasetReport, Suspicious, Unreadable
from training.datasets.shortage import causes
from training.datasets.split import divide
from training.datasets.split_names import split_of
from training.datasets.suspicion import Look, Suspicion
from training.errors import words_of
from training.images.decode import ImageError, decode, read_file
from training.limits import Limits
from training.system.durable import write_atomically

MEMORY_BUDGET = 4 * 1024**3  # bytes of decoded pixels: 28,532 images at 224 x 224

Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Dataset:
    """What `scan` found: class names, sorted; all files, and how to split those that lie in no split.

    `folder` holds the classes or splits; `root` is its path in the folder that was asked for, empty where it is that.
    """

    folder: Path
    labels: list[str]
    samples: list[Sample]
    val_fraction: float
    test_fraction: float
    seed: int
    root: str = ""
    given: tuple[str, ...] = ()  # the splits that are folders
    passed_over: list[str] = field(default_factory=list)  # files in no class folder
    notes: list[str] = field(default_factory=list)  # what was read in one of two ways

    @property
    def dealt(self) -> dict[str, float]:
        """The fraction of each split that is no folder, and is dealt."""
        fractions = {"test": self.test_fraction, "val": self.val_fraction}
        return {split: fraction for split, fraction in fractions.items() if split not in self.given}


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
    """Lists a folder's images by class. Fractions and seed matter only where the folder lacks splits.

    Then the split comes with the reading, of the readable images alone. It is stratified, depends on nothing but
    names, bytes and seed, and keeps files of the same bytes together: no image is both trained on and tested on.
    Raises DatasetError.
    """
    layout = layout_of(folder)
    root, splits = layout.root, layout.splits
    labels, samples = _of_splits(root, splits) if splits else _of_classes(root)
    return Dataset(
        root,
        labels,
        samples,
        val_fraction,
        test_fraction,
        seed,
        root=text(root.relative_to(folder).as_posix()) if root != folder else "",
        given=tuple(splits),
        passed_over=[text(path.relative_to(folder).as_posix()) for path in layout.beside],
        notes=_notes(labels, samples, layout),
    )


def _of_classes(root: Path) -> tuple[list[str], list[Sample]]:
    """Labels and files of `root/<class>/*`."""
    classes = classes_of(root, root)
    labels = labels_of(root, classes)
    return labels, samples_of(classes, labels)


def _of_splits(root: Path, splits: dict[str, Path]) -> tuple[list[str], list[Sample]]:
    """Labels and files of `root/<split>/<class>/*`; those of train are in no split where another is dealt from it."""
    by_split = {split: classes_of(splits[split], root) for split in SPLITS if split in splits}
    labels = labels_of(splits["train"], by_split["train"])
    for split, classes in by_split.items():
        if unknown := sorted(set(classes) - set(labels)):
            raise DatasetError(f"{splits[split]} has {few(unknown)}, which {splits['train']} has not: {few(labels)}")
        if missing := [label for label in labels if not classes.get(label)]:
            raise DatasetError(
                f"{splits[split]} should have images of every class, it has none of {few(missing)}. Move it away "
                f"to have a {split} dealt from train"
            )
    whole = len(splits) == len(SPLITS)
    given = {split: split if whole or split != "train" else None for split in by_split}
    return labels, [s for split, classes in by_split.items() for s in samples_of(classes, labels, given[split])]


def _notes(labels: list[str], samples: list[Sample], layout: Layout) -> list[str]:
    """What the reading took for granted."""
    # how many parts of a sample's name end with its class, by the name's first part
    parts_of = {path.relative_to(layout.root).parts for path in layout.splits.values()}
    classes_at = {text(parts[0]): len(parts) + 1 for parts in parts_of}
    inside: dict[int, set[str]] = defaultdict(set)
    for sample in samples:
        parts = sample.name.split("/")
        parts = parts[classes_at.get(parts[0], 1) if layout.splits else 1 :]
        if len(parts) > 1 or is_picture(sample.name):
            inside[sample.label].add(parts[0] if len(parts) > 1 else "")
    deep = [
        f"{labels[label]!r} ({few(sorted(folders - {''}))}){' and beside them' if '' in folders else ''}"
        for label, folders in inside.items()
        if len(folders - {""}) > 1
    ]
    notes = [f"read as one class, with the pictures of the folders in it: {few(deep, quote=False)}"] if deep else []
    if not layout.splits and (named := [label for label in labels if split_of(label)]):
        notes.append(f"read as a class and not as a split, as its neighbours are classes: {few(named)}")
    return notes + [
        f"read as different classes, though only their case or blanks differ: {few(a)}" for a in _alike(labels)
    ]


def _alike(labels: list[str]) -> list[list[str]]:
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[" ".join(label.casefold().split())].append(label)
    return [group for group in alike.values() if len(group) > 1]


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
    write_atomically(path, json.dumps(rows))  # the check's record says that it is there


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` has kept. Raises DatasetError when it is damaged."""
    try:
        return [Sample(Path(place), *rest) for place, *rest in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error}. Remove checking.json beside it, and the run checks the images again"
        ) from None


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
    samples = _divided(dataset, samples, unreadable)
    samples = sorted(samples, key=lambda sample: (SPLITS.index(sample.split or ""), sample.name))
    return samples, unreadable, suspicious


def _divided(dataset: Dataset, samples: list[Sample], unreadable: list[Unreadable]) -> list[Sample]:
    """All samples with their split: those that lie in one, and those that are dealt."""
    given = [sample for sample in samples if sample.split]
    loose = [sample for sample in samples if not sample.split]
    if not loose:
        return given

    def explain(label: int) -> str:
        files = [sample for sample in dataset.samples if sample.label == label and not sample.split]
        return causes(files, loose, unreadable, dataset.labels)

    return given + divide(loose, dataset.labels, dataset.dealt, dataset.seed, explain)


def _report(dataset: Dataset, samples: list[Sample], unreadable: list[Unreadable]) -> DatasetReport:
    classes = {split: dict.fromkeys(dataset.labels, 0) for split in SPLITS}
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        classes[sample.split or ""][dataset.labels[sample.label]] += 1
        same[sample.sha256].append(sample)
    for split, counts in classes.items():
        if empty := [label for label, count in counts.items() if not count]:
            raise DatasetError(
                f"{split} of {dataset.folder} has no readable image of {few(empty)}: "
                + "; ".join(_why_empty(dataset, split, label, unreadable) for label in empty[:5])
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
        root=dataset.root,
        dealt=[split for split in SPLITS if dataset.given and split in dataset.dealt],
        passed_over=dataset.passed_over,
        notes=dataset.notes,
    )


def _why_empty(dataset: Dataset, split: str, label: str, unreadable: list[Unreadable]) -> str:
    index = dataset.labels.index(label)
    files = [file for file in dataset.samples if file.label == index and file.split in (split, None)]
    return f"{label!r} has 0 in {causes(files, [], unreadable, dataset.labels)}"


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
        raise DatasetError(
            f"{sample.path} was readable when the dataset was checked, now: {words_of(error)}"
        ) from error
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
        raise DatasetError(f"{cache} should take {size} bytes of decoded images: {words_of(error)}") from error
