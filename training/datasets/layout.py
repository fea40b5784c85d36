"""Which files a dataset's folder holds, by split and class. Names are NFC, so that every system sorts them alike."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})  # beside what starts with a dot


class DatasetError(TrainingError):
    """A folder that can not be trained on: what was expected of it, what it holds."""


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


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of train, val and test; empty where `folder` holds classes instead."""
    folders = _subfolders(folder)
    named = [path for path in folders if path.name.lower() in SPLIT_FOLDERS]
    # a class may be called "train": then it holds images and has neighbours that are no split
    if not named or (len(named) < len(folders) and any(_loose_files(path) for path in named)):
        return {}
    splits: dict[str, Path] = {}
    for path in named:
        split = SPLIT_FOLDERS[path.name.lower()]
        if split in splits:
            raise DatasetError(f"{folder} has two folders for {split}: {splits[split].name!r} and {path.name!r}")
        splits[split] = path
    if missing := [split for split in SPLITS if split not in splits]:
        raise DatasetError(
            f"{folder} should have the subfolders train, val and test; {' and '.join(missing)} missing, "
            f"it has {few([path.name for path in folders])}"
        )
    return splits


def classes_of(folder: Path, root: Path) -> dict[str, list[tuple[str, Path]]]:
    """Label -> (name, path) of each file below its class folder, sorted by name."""
    classes: dict[str, list[tuple[str, Path]]] = {}
    for path in _subfolders(folder):
        label = text(path.name)
        if label in classes:
            raise DatasetError(f"{folder} has two folders that both spell {label!r}, in different Unicode forms")
        if label.splitlines() != [label]:  # labels.txt has one a line
            raise DatasetError(f"{folder} has a class folder with a line break in its name: {label!r}")
        classes[label] = sorted((text(file.relative_to(root).as_posix()), file) for file in _files(path))
    return classes


def labels_of(folder: Path, classes: dict[str, list[tuple[str, Path]]]) -> list[str]:
    if len(classes) < 2:
        found = f"only {next(iter(classes))!r}" if classes else f"no folder and {len(_loose_files(folder))} files"
        raise DatasetError(f"{folder} should hold at least two class folders, it has {found}")
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


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not _ignored(path.name))
    except OSError as error:
        raise DatasetError(f"{folder} can not be listed: {error.strerror}") from error


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _loose_files(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if not path.is_dir()]


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones; a dangling link too, so that it is reported and not passed over."""

    def stop(error: OSError) -> None:
        raise DatasetError(f"{error.filename} can not be listed: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not _ignored(name)]
        for name in files:
            path = Path(parent, name)
            if not _ignored(name) and (path.is_file() or path.is_symlink()):
                yield path


def text(name: str) -> str:
    """A file's name in NFC (macOS hands out NFD), its bytes that are no UTF-8 as escapes."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def few(names: list[str], most: int = 5, *, quote: bool = True) -> str:
    shown = ", ".join(map(repr, names[:most]) if quote else names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
