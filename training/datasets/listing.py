"""The entries of folders: without clutter, through links, and never round in a circle."""

import os
import unicodedata
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from training.errors import TrainingError, words_of
from training.system.clutter import is_clutter


class DatasetError(TrainingError):
    """A folder that cannot be trained on. The message says what was expected and what the folder holds."""


def text(name: str) -> str:
    """Returns a file's name in NFC (macOS gives NFD), with bytes that are not UTF-8 as escapes."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the folders and the other entries of a folder, sorted, without clutter.

    A link to a folder counts as a folder, unless `folder` lies within the folder that it leads to. Raises DatasetError.
    """
    folders: list[Path] = []
    others: list[Path] = []
    try:
        with os.scandir(folder) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                if not is_clutter(entry.name):
                    (folders if _is_folder(entry, folder) else others).append(folder / entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {words_of(error)}") from error
    return folders, others


def names_in(folder: Path) -> Iterator[str]:
    """Yields the names of a folder's entries except folders and clutter, in no order. Raises DatasetError."""
    try:
        with os.scandir(folder) as found:
            yield from (entry.name for entry in found if not is_clutter(entry.name) and not entry.is_dir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {words_of(error)}") from error


def files_below(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder, without clutter. It follows links to folders and reads each folder once.

    A link that leads to nothing, or that is not followed, is yielded too: so it is reported and not passed over. Raises
    DatasetError.
    """

    def stop(error: OSError) -> None:
        raise DatasetError(f"{error.filename} cannot be listed: {words_of(error)}") from error

    read: set[str] = set()
    tops = deque([folder])
    while tops:
        top = tops.popleft()
        if top != folder and os.path.realpath(top) in read | _around(top.parent):
            yield top
            continue
        for parent, folders, files in os.walk(top, onerror=stop):
            read.add(os.path.realpath(parent))
            folders[:] = sorted(name for name in folders if not is_clutter(name))
            tops += [path for name in folders if (path := Path(parent, name)).is_symlink()]  # walk does not enter links
            yield from (Path(parent, name) for name in files if not is_clutter(name))


def _is_folder(entry: os.DirEntry[str], parent: Path) -> bool:
    try:
        if not entry.is_dir():
            return False
    except OSError:  # a link that cannot be followed
        return False
    return not entry.is_symlink() or os.path.realpath(entry.path) not in _around(parent)


def _around(folder: Path) -> set[str]:
    """Returns the real paths of a folder and its parents, on both sides of every link on the way to it."""
    place = folder.absolute()
    reals = [Path(os.path.realpath(path)) for path in (place, *place.parents)]
    return {str(path) for real in reals for path in (real, *real.parents)}
