"""The folder of all datasets: uploaded ones, in revisions, and folders that the operator put there.

    photos/CURRENT  photos/3/summary.json  photos/3/report.json  photos/3/images/...      uploaded
    flowers/train/...  flowers/val/...  flowers/test/...                                  mounted: without CURRENT

A revision is written in a hidden staging folder on the same file system, flushed to disk and renamed in one step; then
CURRENT names it. A crash at any point leaves the store as it was. Nothing here needs TensorFlow.
"""

import re
import shutil
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from training.contract.names import usable_name
from training.errors import TrainingError
from training.system.clutter import is_clutter
from training.system.durable import fsync, write_atomically
from training.system.locks import LONGEST_S, exclusive
from training.system.staging import bury, new_staging, remove_stale_staging

CURRENT_FILE = "CURRENT"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.json"
IMAGES_FOLDER = "images"

# in a staging folder
ARCHIVE_FILE = "archive"
REVISION_FOLDER = "revision"


class DatasetStoreError(TrainingError):
    """A dataset that cannot be used as asked."""


class DatasetNotFound(DatasetStoreError):
    """A dataset, or a revision of one, that does not exist."""


class DatasetMounted(DatasetStoreError):
    """A folder that the operator put there, which the store does not change."""


class DatasetDamaged(DatasetStoreError):
    """An uploaded dataset whose files are not as the store wrote them."""


class Summary(BaseModel):
    """The small `summary.json` of a dataset, for lists. The report may be large."""

    created: datetime
    images: int = Field(description="readable images")
    classes: int
    bytes: int = Field(description="of the images' files")
    fingerprint: str


class Resolved(NamedTuple):
    """The place of a dataset's images, and their fingerprint at the check. A mounted dataset may change at any time."""

    folder: Path
    revision: int | None
    fingerprint: str | None


class DatasetStore:
    """The datasets under `root`. Readers need no lock, since every change is one rename. Writers lock `.lock`.

    They wait up to `lock_seconds` for it and then raise LockHeld.
    """

    def __init__(self, root: Path, lock_seconds: float = LONGEST_S) -> None:
        self.root = root
        self._lock_seconds = lock_seconds

    def names(self) -> list[str]:
        """Returns all datasets, uploaded and mounted, sorted. Names that no route accepts are in `misnamed`."""
        return sorted({normal for name in self._folders() if (normal := _normal(name))})

    def misnamed(self) -> list[str]:
        """Returns the folders that would be datasets if their names could be used."""
        return sorted(name.encode(errors="backslashreplace").decode() for name in self._folders() if not _normal(name))

    def current(self, name: str) -> int | None:
        """Returns the newest revision's number, None for a mounted dataset. Raises DatasetNotFound, DatasetDamaged."""
        path = self._folder(name) / CURRENT_FILE
        try:
            held = path.read_text().strip()
        except FileNotFoundError:
            return None
        if not _is_revision(held):
            raise DatasetDamaged(f"{path} should hold a revision's number, it holds {held[:40]!r}")
        return int(held)

    def resolve(self, name: str, revision: int | None = None) -> Resolved:
        """Finds the images of a revision, by default of the current one. Raises DatasetNotFound, DatasetDamaged."""
        current = self.current(name)
        if current is None:
            if revision is not None:
                raise DatasetNotFound(
                    f"dataset {name!r} is a folder that the operator put there, it has no revision {revision}"
                )
            return Resolved(self._folder(name), None, None)
        revision = revision or current
        return Resolved(
            self._revision(name, revision) / IMAGES_FOLDER, revision, self.summary(name, revision).fingerprint
        )

    def summary(self, name: str, revision: int) -> Summary:
        """Returns a revision's summary. Raises DatasetNotFound, DatasetDamaged."""
        path = self._revision(name, revision) / SUMMARY_FILE
        try:
            return Summary.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            raise DatasetDamaged(f"{path} should hold the dataset's summary: {error}") from error

    def report(self, name: str, revision: int) -> bytes:
        """Returns a revision's DatasetReport as JSON, unparsed. Raises DatasetNotFound, DatasetDamaged."""
        path = self._revision(name, revision) / REPORT_FILE
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise DatasetDamaged(f"{path} is missing") from None

    def staging(self) -> Path:
        """Makes a hidden folder for the caller to fill and to remove. Folders that crashes left go after a day."""
        self.root.mkdir(parents=True, exist_ok=True)
        remove_stale_staging(self.root)
        return new_staging(self.root)

    def require_uploaded(self, name: str) -> None:
        """Raises DatasetMounted unless the dataset was uploaded, or DatasetNotFound, DatasetDamaged."""
        if self.current(name) is None:
            raise DatasetMounted(
                f"{name!r} is a folder that the operator put there, it can be neither uploaded to nor deleted"
            )

    def require_uploadable(self, name: str) -> None:
        """Raises DatasetMounted or DatasetDamaged unless the name is free or an uploaded dataset's."""
        if self._place(name).exists():
            self.require_uploaded(name)

    def commit(self, staged: Path, name: str) -> int:
        """Makes a staged folder (images, summary, report) the current revision. Returns its number.

        Raises DatasetMounted, DatasetDamaged.
        """
        with self._lock():
            self.require_uploadable(name)
            folder = self.root / name
            revision = max(self.revisions(name), default=0) + 1
            for path in (staged / SUMMARY_FILE, staged / REPORT_FILE, staged):
                fsync(path)
            if revision == 1:
                # the whole folder in one rename: a folder without CURRENT would count as the operator's
                first = staged.with_name(f"{staged.name}-first")
                first.mkdir(mode=0o755)
                staged.rename(first / "1")
                write_atomically(first / CURRENT_FILE, "1\n")
                first.rename(folder)
            else:
                staged.rename(folder / str(revision))
                fsync(folder)
                write_atomically(folder / CURRENT_FILE, f"{revision}\n")
            fsync(self.root)
            return revision

    def delete(self, name: str) -> None:
        """Removes a dataset with all its revisions. Raises DatasetNotFound, DatasetMounted, DatasetDamaged."""
        self.require_uploaded(name)
        with self._lock():
            self.require_uploaded(name)
            grave = bury(self.root / name, self.root)
        shutil.rmtree(grave)

    def prune(self, name: str, keep: Collection[int] = ()) -> list[int]:
        """Removes all revisions but the current one and those in `keep`; returns which. Raises as `delete` does."""
        self.require_uploaded(name)
        with self._lock():
            kept = {self.current(name), *keep}
            gone = [revision for revision in self.revisions(name) if revision not in kept]
            graves = [bury(self._revision(name, revision), self.root) for revision in gone]
        for grave in graves:
            shutil.rmtree(grave)
        return gone

    def revisions(self, name: str) -> list[int]:
        """Returns the numbers of all revisions, ascending."""
        folder = self._place(name)
        if not (folder / CURRENT_FILE).exists():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if _is_revision(path.name) and path.is_dir())

    def _folder(self, name: str) -> Path:
        if not _normal(name) or not (folder := self._place(name)).is_dir():
            raise DatasetNotFound(f"there is no dataset {name!r}; there are: {', '.join(self.names()) or 'none'}")
        return folder

    def _place(self, name: str) -> Path:
        """Returns where a dataset lies or would lie. A mounted folder's name may be in another Unicode form."""
        place = self.root / name
        if place.exists():
            return place
        return next((self.root / other for other in self._folders() if _normal(other) == name), place)

    def _folders(self) -> list[str]:
        """Returns the names of all folders that are neither hidden nor the system's own."""
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if not is_clutter(path.name) and path.is_dir()]

    def _revision(self, name: str, revision: int) -> Path:
        folder = self._folder(name) / str(revision)
        if not folder.is_dir():
            known = ", ".join(map(str, self.revisions(name))) or "none"
            raise DatasetNotFound(f"dataset {name!r} has no revision {revision}; it has: {known}")
        return folder

    def _lock(self) -> AbstractContextManager[None]:
        return exclusive(self.root / ".lock", self._lock_seconds)


def _normal(name: str) -> str | None:
    """Returns the name of a folder's dataset, None where the name cannot be used."""
    try:
        return usable_name(name)
    except ValueError:
        return None


def _is_revision(name: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,8}", name) is not None
