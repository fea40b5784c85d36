"""What lies in a folder: without what systems leave there, through links, and never round in a circle."""

import os
import unicodedata
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from training.errors import TrainingError, words_of
from training.system.clutter import is_clutter


class DatasetError(TrainingError):
    """A folder that can not be trained on: what was expected of it, what it holds."""


def text(name: str) -> str:
    """A file's name in NFC (macOS hands out NFD), its bytes that are no UTF-8 as escapes."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the other entries of a folder, sorted, without clutter.

    A link to a folder is a folder, unless `folder` lies in what the link leads to. Raises DatasetError.
    """
    folders: list[Path] = []
    others: list[Path] = []
    try:
        with os.scandir(folder) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                if not is_clutter(entry.name):
                    (folders if _is_folder(entry, folder) else others).append(folder / entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} can not be listed: {words_of(error)}") from error
    return folders, others


def names_in(folder: Path) -> Iterator[str]:
    """The names of a folder's entries but folders and clutter, in no order. Raises DatasetError."""
    try:
        with os.scandir(folder) as found:
            yield from (entry.name for entry in found if not is_clutter(entry.name) and not entry.is_dir())
    except OSError as error:
        raise DatasetError(f"{folder} can not be listed: {words_of(error)}") from error


def files_below(folder: Path) -> Iterator[Path]:
    """All but folders and clutter below a folder, also below the folders that links lead to, each of them once.

    A link that leads to nothing, or that is not followed, is among them: to be reported, and not passed over.
    Raises DatasetError.
    """

    def stop(error: OSError) -> None:
        raise DatasetError(f"{error.filename} can not be listed: {words_of(error)}") from error

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
            tops += [path for name in folders if (path := Path(parent, name)).is_symlink()]  # which walk does not enter
            yield from (Path(parent, name) for name in files if not is_clutter(name))


def _is_folder(entry: os.DirEntry[str], parent: Path) -> bool:
    try:
        if not entry.is_dir():
            return False
    except OSError:  # a link that can not be followed
        return False
    return not entry.is_symlink() or os.path.realpath(entry.path) not in _around(parent)


def _around(folder: Path) -> set[str]:
    """The real paths of a folder and of all that it lies in, on both sides of every link on the way to it."""
    place = folder.absolute()
    reals = [Path(os.path.realpath(path)) for path in (place, *place.parents)]
    return {str(path) for real in reals for path in (real, *real.parents)}
