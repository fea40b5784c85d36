"""A folder of images as a list of files by class. The names are read here; `training.datasets.check` reads the files.

There are two layouts: `DIR/{train,val,test}/<class>/*`, where val and test may be missing, and `DIR/<class>/*`. The
check deals images to the splits that are missing.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from training.datasets.layout import (
    SPLITS,
    DatasetError,
    Layout,
    Sample,
    classes_of,
    is_picture,
    labels_of,
    layout_of,
    samples_of,
)
from training.datasets.listing import text
from training.datasets.split_names import split_of
from training.errors import few


@dataclass(frozen=True)
class Dataset:
    """The sorted class names and all files of a folder, and how to deal the files that lie in no split.

    `folder` holds the classes or splits. `root` is its path in the folder that was asked for, empty where the two are
    the same.
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
    notes: list[str] = field(default_factory=list)  # what could be read in two ways, and how it was read

    @property
    def dealt(self) -> dict[str, float]:
        """The fraction of each split that has no folder and is dealt instead."""
        fractions = {"test": self.test_fraction, "val": self.val_fraction}
        return {split: fraction for split, fraction in fractions.items() if split not in self.given}


def list_dataset(folder: Path, val_fraction: float, test_fraction: float, seed: int) -> Dataset:
    """Lists a folder's files by class. Fractions and seed matter only where the folder lacks splits.

    The check then deals the readable images. The deal is stratified, depends only on names, bytes and seed, and keeps
    files of the same bytes together: no image is both trained on and tested on. Raises DatasetError.
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
    """Returns labels and files of `root/<class>/*`."""
    classes = classes_of(root, root)
    labels = labels_of(root, classes)
    return labels, samples_of(classes, labels)


def _of_splits(root: Path, splits: dict[str, Path]) -> tuple[list[str], list[Sample]]:
    """Returns labels and files of `root/<split>/<class>/*`.

    Files of train have no split yet where another split will be dealt from train.
    """
    by_split = {split: classes_of(splits[split], root) for split in SPLITS if split in splits}
    labels = labels_of(splits["train"], by_split["train"])
    for split, classes in by_split.items():
        if unknown := sorted(set(classes) - set(labels)):
            raise DatasetError(
                f"{splits[split]} has {few(unknown)}, which {splits['train']} lacks: it has {few(labels)}. Every split "
                "should have the same class folders"
            )
        if missing := [label for label in labels if not classes.get(label)]:
            raise DatasetError(
                f"{splits[split]} should have images of every class, it has none of {few(missing)}. Add some, or move "
                f"that folder away: {split} is then dealt from train"
            )
    whole = len(splits) == len(SPLITS)
    given = {split: split if whole or split != "train" else None for split in by_split}
    return labels, [s for split, classes in by_split.items() for s in samples_of(classes, labels, given[split])]


def _notes(labels: list[str], samples: list[Sample], layout: Layout) -> list[str]:
    """Returns a sentence for each thing that could be read in two ways, and how it was read."""
    notes = []
    if deep := _classes_of_folders(labels, samples, layout):
        notes.append(f"read as one class, with the pictures of the folders in it: {few(deep, quote=False)}")
    if not layout.splits and (named := [label for label in labels if split_of(label)]):
        notes.append(f"read as a class and not as a split, as its neighbours are classes: {few(named)}")
    for alike in _alike(labels):
        notes.append(f"read as different classes, though only their case or blanks differ: {few(alike)}")
    return notes


def _classes_of_folders(labels: list[str], samples: list[Sample], layout: Layout) -> list[str]:
    """Returns the classes whose pictures lie in several folders, with the names of those folders."""
    # how many parts of a sample's name end with its class, by the name's first part
    parts_of = {path.relative_to(layout.root).parts for path in layout.splits.values()}
    classes_at = {text(parts[0]): len(parts) + 1 for parts in parts_of}
    inside: dict[int, set[str]] = defaultdict(set)
    for sample in samples:
        parts = sample.name.split("/")
        parts = parts[classes_at.get(parts[0], 1) if layout.splits else 1 :]
        if len(parts) > 1 or is_picture(sample.name):
            inside[sample.label].add(parts[0] if len(parts) > 1 else "")
    return [
        f"{labels[label]!r} ({few(sorted(folders - {''}))}){' and beside them' if '' in folders else ''}"
        for label, folders in inside.items()
        if len(folders - {""}) > 1
    ]


def _alike(labels: list[str]) -> list[list[str]]:
    """Returns the groups of labels that differ only in case or blanks."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[" ".join(label.casefold().split())].append(label)
    return [group for group in alike.values() if len(group) > 1]
