"""The meaning of a dataset's folder: classes, or splits of classes. Names are NFC, so every system sorts them alike.

A folder that can be read in two ways is refused, and the message names both: a guess would train a classifier of the
wrong things.
"""

import os
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path

from PIL import Image

from training.contract.labels import unseen_in
from training.datasets.listing import (
    DatasetError as DatasetError,
)  # importable from here too: most modules that raise it read a layout
from training.datasets.listing import entries, files_below, names_in, text
from training.datasets.split_names import split_of, splits_among
from training.errors import few

SPLITS = ("train", "val", "test")
PICTURES = frozenset({*Image.registered_extensions(), ".heic", ".heif", ".hif", ".jxl"})
STRAY = 3  # pictures that may lie beside class folders, such as a cover or a sample


@dataclass(frozen=True)
class Sample:
    """One file. `name` is its path in the dataset's folder (NFC, forward slashes), `label` an index into the labels.

    `split` is None until a dataset without splits is divided, `sha256` (hex) is empty until the file is read.
    """

    path: Path
    name: str
    label: int
    split: str | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Layout:
    """The reading of a dataset's folder: `root` or each of `splits` holds the classes; `beside` are other files."""

    root: Path
    splits: dict[str, Path]
    beside: list[Path]

    @property
    def places(self) -> list[Path]:
        """The folders that hold classes."""
        return list(self.splits.values()) or [self.root]


def layout_of(folder: Path) -> Layout:
    """Reads the upper folders only. Raises DatasetError where no classifier can be trained on the folder."""
    if not folder.is_dir():
        if folder.exists():
            raise DatasetError(f"the dataset should be a folder, {folder} is a file")
        raise DatasetError(f"the dataset should be a folder, {folder} is not there")
    layout = reading_of(folder)
    root, splits = layout.root, layout.splits
    if splits and "train" not in splits:
        names = few([path.relative_to(root).parts[0] for path in splits.values()])
        raise DatasetError(
            f"{root} should have a folder train beside {names}, it has none. Rename {names} if these are not splits"
        )
    _require_two_classes(splits.get("train", root))
    for place in layout.places:
        _require_one_reading(place)
    return layout


def reading_of(folder: Path) -> Layout:
    """Returns where the classes of a folder lie, even when they are too few to train on. Raises DatasetError."""
    root, beside = _unwrapped(folder)
    splits: dict[str, Path] = {}
    for split, path in _split_folders(root).items():
        splits[split], around = _unwrapped(path, in_split=True)
        beside += around
    layout = Layout(root, splits, beside)
    loose = [file for place in dict.fromkeys((root, *layout.places)) for file in entries(place)[1]]
    return replace(layout, beside=beside + loose)


def _unwrapped(folder: Path, in_split: bool = False) -> tuple[Path, list[Path]]:
    """Returns the folder below those that hold nothing but one folder of folders, and the files beside them.

    `flowers/rose/1.jpg` is read from `flowers`.
    """
    folders, beside = entries(folder)
    if len(folders) != 1:
        return folder, []
    inner = [path.name for path in entries(folders[0])[0]]
    # a lone `train` holds classes, unless it holds splits, or is the one in `train/train/rose`
    if not inner or (not in_split and split_of(folders[0].name) and not splits_among(inner)):
        return folder, []
    root, more = _unwrapped(folders[0], in_split)
    return root, beside + more


def _split_folders(folder: Path) -> dict[str, Path]:
    """Returns the folders of the splits; none where `folder` holds classes instead. Raises DatasetError."""
    folders = {path.name: path for path in entries(folder)[0]}
    named = splits_among(folders)
    others = [name for name in folders if name not in named]
    if others and named:
        # a class may be called "train": then it holds images, and no more folders of classes than its neighbors
        if len(set(named.values())) == 1 and not any(_holds_classes(folders[name]) for name in named):
            return {}
        names = few(list(named))
        raise DatasetError(
            f"{folder} should hold splits or classes: {names} would be splits, beside them {few(others)} would be "
            f"classes. Move {few(others)} away to use the splits, or rename {names} to have classes of those names"
        )
    splits: dict[str, Path] = {}
    for name, split in named.items():
        if split in splits:
            raise DatasetError(f"{folder} has two folders for {split}: {splits[split].name!r} and {name!r}")
        splits[split] = folders[name]
    return splits


def _holds_classes(folder: Path) -> bool:
    return len(entries(_unwrapped(folder, in_split=True)[0])[0]) > 1


def _require_two_classes(folder: Path) -> None:
    folders, files = entries(folder)
    if len(folders) < 2:
        found = f"only {text(folders[0].name)!r}" if folders else f"no folder and {_counted(files)}"
        raise DatasetError(f"{folder} should hold at least two class folders, it has {found}")


def _counted(files: list[Path]) -> str:
    if not files:
        return "no file"
    return f"{len(files)} {'file' if len(files) == 1 else 'files'} ({few([text(file.name) for file in files], 3)})"


def _require_one_reading(folder: Path) -> None:
    """Raises DatasetError where the folders may be classes, or parts of one dataset.

    Parts hold no pictures of their own, or few stray ones, and two of them have two folders of the same names
    (`fold1/cat fold1/dog fold2/cat fold2/dog`).
    """
    several = {}
    for path in entries(folder)[0]:
        if not _has_pictures(path):
            inner, _ = _unwrapped(path, in_split=True)
            names = {split_of(part.name) or text(part.name).casefold() for part in entries(inner)[0]}
            if len(names) > 1:
                several[path.name] = names
    for (one, of_one), (other, of_other) in combinations(several.items(), 2):
        common = sorted(of_one & of_other)
        if len(common) > 1 and set(common) <= set(SPLITS):
            raise DatasetError(
                f"{folder} has {one!r} and {other!r}, each with the splits {few(common)}: the splits should be the "
                f"outer folders, {common[0]}/{one}"
            )
        if len(common) > 1:
            raise DatasetError(
                f"{folder} can be read in two ways: {one!r} and {other!r} as classes, each with the pictures of all "
                f"its folders, or as parts of one dataset, whose classes are {few(common)}. If they are parts, name "
                "them train, val and test, or merge them into one folder a class; if they are classes, put their "
                "pictures into them directly"
            )


def _has_pictures(folder: Path) -> bool:
    """Whether a folder has more than stray pictures of its own. It stops at the first few of 100,000 names."""
    pictures = (name for name in names_in(folder) if is_picture(name))
    return next(islice(pictures, STRAY, None), None) is not None


def is_picture(name: str) -> bool:
    """Whether a file has the name of a picture."""
    return os.path.splitext(name)[1].lower() in PICTURES


def classes_of(folder: Path, root: Path) -> dict[str, list[tuple[str, Path]]]:
    """Returns (name, path) of each file below its class folder by label, sorted by name."""
    classes: dict[str, list[tuple[str, Path]]] = {}
    for path in entries(folder)[0]:
        label = text(path.name)
        if label in classes:
            raise DatasetError(f"{folder} has two folders that both spell {label!r}, in different Unicode forms")
        if unseen := unseen_in(label):
            raise DatasetError(f"{folder} has a class folder whose name holds {unseen}, which nobody sees: {label!a}")
        classes[label] = sorted((text(file.relative_to(root).as_posix()), file) for file in files_below(path))
    return classes


def labels_of(folder: Path, classes: dict[str, list[tuple[str, Path]]]) -> list[str]:
    """Returns the classes, sorted. Raises DatasetError when one is empty."""
    if empty := sorted(label for label, files in classes.items() if not files):
        raise DatasetError(f"{folder} should have images of every class, {few(empty)} holds no file")
    return sorted(classes)


def samples_of(classes: dict[str, list[tuple[str, Path]]], labels: list[str], split: str | None = None) -> list[Sample]:
    """Returns all files of all classes, sorted by name."""
    index = {label: i for i, label in enumerate(labels)}
    return sorted(
        (Sample(path, name, index[label], split) for label, files in classes.items() for name, path in files),
        key=lambda sample: sample.name,
    )
