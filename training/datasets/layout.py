"""What a dataset's folder means: classes, or splits of classes. Names are NFC, so that every system sorts them alike.

What can be read in two ways is refused, and both are told: a guess would train a classifier of the wrong things.
"""

import os
import unicodedata
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from PIL import Image

from training.datasets.listing import DatasetError as DatasetError  # also from here: most who raise it read a layout
from training.datasets.listing import entries, files_below, names_in
from training.datasets.split_names import split_of

SPLITS = ("train", "val", "test")
PICTURES = frozenset({*Image.registered_extensions(), ".heic", ".heif", ".hif", ".jxl"})


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
    """How a dataset's folder is read: `root` holds the classes, or `splits` do; `beside` are files around `root`."""

    root: Path
    splits: dict[str, Path]
    beside: list[Path]


def layout_of(folder: Path) -> Layout:
    """Lists no more than the upper folders. Raises DatasetError where no classifier can be trained on the folder."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        raise DatasetError(f"the dataset should be a folder, {folder} is {found}")
    root, beside = unwrapped(folder)
    splits = split_folders(root)
    if splits and "train" not in splits:
        names = few([path.name for path in splits.values()])
        raise DatasetError(
            f"{root} should have a folder train beside {names}, it has none. Rename {names} if these are no splits"
        )
    _require_two_classes(splits.get("train", root))
    for place in splits.values() or [root]:
        _require_one_reading(place)
    return Layout(root, splits, beside)


def unwrapped(folder: Path) -> tuple[Path, list[Path]]:
    """The folder below those that hold one folder of folders each, and the files beside them: `flowers/rose/1.jpg`."""
    folders, beside = entries(folder)
    if len(folders) != 1:
        return folder, []
    inner = [path.name for path in entries(folders[0])[0]]
    # a lone `train` holds classes, unless it holds splits
    if not inner or (split_of(folders[0].name) and not any(map(split_of, inner))):
        return folder, []
    root, more = unwrapped(folders[0])
    return root, beside + more


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits that there are; empty where `folder` holds classes instead. Raises DatasetError."""
    named = [(path, split) for path in entries(folder)[0] if (split := split_of(path.name))]
    others = [path.name for path in entries(folder)[0] if not split_of(path.name)]
    if others and named:
        # a class may be called "train": then it holds images, and folders of classes no more than its neighbours do
        if len({split for _, split in named}) == 1 and all(len(entries(path)[0]) < 2 for path, _ in named):
            return {}
        names = few([path.name for path, _ in named])
        raise DatasetError(
            f"{folder} should hold splits or classes: {names} would be splits, beside them {few(others)} would be "
            f"classes. Move {few(others)} away to use the splits, or rename {names} to have classes of those names"
        )
    splits: dict[str, Path] = {}
    for path, split in named:
        if split in splits:
            raise DatasetError(f"{folder} has two folders for {split}: {splits[split].name!r} and {path.name!r}")
        splits[split] = path
    return splits


def _require_two_classes(folder: Path) -> None:
    folders, files = entries(folder)
    if len(folders) < 2:
        found = f"only {text(folders[0].name)!r}" if folders else f"no folder and {len(files)} files"
        raise DatasetError(f"{folder} should hold at least two class folders, it has {found}")


def _require_one_reading(folder: Path) -> None:
    """Raises DatasetError where the folders may be classes, or parts of one dataset.

    Those hold no picture of their own, and two of them have two folders of the same names (`fold1/cat fold1/dog
    fold2/cat fold2/dog`).
    """
    inside = {}
    for path in entries(folder)[0]:
        if not any(is_picture(name) for name in names_in(path)):  # the first of 100,000 names ends it
            inside[path.name] = {split_of(inner.name) or text(inner.name).casefold() for inner in entries(path)[0]}
    several = {name: folders for name, folders in inside.items() if len(folders) > 1}
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


def is_picture(name: str) -> bool:
    """Whether a file is called like one."""
    return os.path.splitext(name)[1].lower() in PICTURES


def classes_of(folder: Path, root: Path) -> dict[str, list[tuple[str, Path]]]:
    """Label -> (name, path) of each file below its class folder, sorted by name."""
    classes: dict[str, list[tuple[str, Path]]] = {}
    for path in entries(folder)[0]:
        label = text(path.name)
        if label in classes:
            raise DatasetError(f"{folder} has two folders that both spell {label!r}, in different Unicode forms")
        if label.splitlines() != [label]:  # labels.txt has one a line
            raise DatasetError(f"{folder} has a class folder with a line break in its name: {label!r}")
        classes[label] = sorted((text(file.relative_to(root).as_posix()), file) for file in files_below(path))
    return classes


def labels_of(folder: Path, classes: dict[str, list[tuple[str, Path]]]) -> list[str]:
    """The classes, sorted. Raises DatasetError when one is empty."""
    if empty := sorted(label for label, files in classes.items() if not files):
        raise DatasetError(f"{folder} should have images of every class, {few(empty)} holds no file")
    return sorted(classes)


def samples_of(classes: dict[str, list[tuple[str, Path]]], labels: list[str], split: str | None = None) -> list[Sample]:
    """All files of all classes, sorted by name."""
    index = {label: i for i, label in enumerate(labels)}
    return sorted(
        (Sample(path, name, index[label], split) for label, files in classes.items() for name, path in files),
        key=lambda sample: sample.name,
    )


def text(name: str) -> str:
    """A file's name in NFC (macOS hands out NFD), its bytes that are no UTF-8 as escapes."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def few(names: list[str], most: int = 5, *, quote: bool = True) -> str:
    shown = ", ".join(map(repr, names[:most]) if quote else names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
