"""The check of a dataset: reads every file once, says what is wrong, and deals the splits that are missing."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.contract.manifest import Preprocessing
from training.datasets.dataset import Dataset
from training.datasets.layout import SPLITS, DatasetError, Sample
from training.datasets.listing import text
from training.datasets.report import DatasetReport, Suspicious, Unreadable
from training.datasets.shortage import causes
from training.datasets.split import divide
from training.datasets.suspicion import Picture, Suspicion
from training.environment import Limits
from training.errors import few
from training.images.decode import ImageError, decode, read_file
from training.system.threads import in_threads

FilesRead = Callable[[int, int], None]
Keep = Callable[[str, NDArray[np.uint8]], None]


def check_dataset(
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    strict: bool = False,
    progress: FilesRead | None = None,
    keep: Keep | None = None,
) -> tuple[DatasetReport, list[Sample]]:
    """Reads and decodes every file once. Returns the report and the readable files, hashed and split.

    `progress` gets (files read, all files), `keep` the SHA-256 and the pixels of each readable file, in threads. Raises
    DatasetError when a class has too few readable images, and with `strict` for any unreadable file.
    """
    samples, unreadable, suspicious = _read(dataset, preprocessing, strict, progress, keep)
    return _report(dataset, samples, unreadable).model_copy(update={"suspicious": suspicious}), samples


def _read(
    dataset: Dataset, preprocessing: Preprocessing, strict: bool, progress: FilesRead | None, keep: Keep | None
) -> tuple[list[Sample], list[Unreadable], list[Suspicious]]:
    """Reads all files in threads. Returns the readable ones, hashed, in the order train, val, test and by name."""
    limits = Limits()

    def read(sample: Sample) -> tuple[Sample, Picture] | Unreadable:
        try:
            data = read_file(sample.path)
            pixels = decode(data, preprocessing, limits)
        except (ImageError, OSError) as error:
            return Unreadable.of(sample.name, error)
        sha256 = hashlib.sha256(data).hexdigest()
        if keep:
            keep(sha256, pixels)
        return replace(sample, sha256=sha256), Picture(pixels)

    suspicion = Suspicion()
    unreadable: list[Unreadable] = []
    suspicious: list[Suspicious] = []
    samples: list[Sample] = []
    with contextlib.closing(in_threads(read, dataset.samples)) as results:  # an interrupt stops the reading
        for done, result in enumerate(results, start=1):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                sample, picture = result
                samples.append(sample)
                if found := suspicion.of(picture, sample.name, sample.sha256):
                    suspicious.append(found)
            if progress:
                progress(done, len(dataset.samples))
    if strict and unreadable:
        raise DatasetError(
            f"every file of {dataset.folder} should be readable (--strict); "
            f"{len(unreadable)} {'is' if len(unreadable) == 1 else 'are'} not: {_named(unreadable)}"
        )
    samples = _divided(dataset, samples, unreadable)
    samples = sorted(samples, key=lambda sample: (SPLITS.index(sample.split or ""), sample.name))
    return samples, unreadable, suspicious


def _divided(dataset: Dataset, samples: list[Sample], unreadable: list[Unreadable]) -> list[Sample]:
    """Returns all samples with their split, given by a folder or dealt."""
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
    """Yields the groups of equal files that lie in one split."""
    for group in groups:
        for split in SPLITS:
            if len(part := [sample for sample in group if sample.split == split]) > 1:
                yield part


def _names(groups: Iterable[list[Sample]]) -> list[list[str]]:
    return sorted(sorted(sample.name for sample in group) for group in groups)


def _named(unreadable: list[Unreadable]) -> str:
    return few([f"{bad.path} ({bad.code}: {bad.message})" for bad in unreadable], quote=False)
