"""Unpacks an archive that somebody has sent: plain files below one new folder and nothing else, within limits."""

import contextlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.datasets.archive_formats import damage_named, members
from training.datasets.archive_members import CHUNK_BYTES, Member, Meter, Metered, Stream
from training.errors import ArchiveError, ArchiveTooLarge, few
from training.images.decode import MAX_FILE_BYTES
from training.system.clutter import is_clutter

MAX_PATH_BYTES = 1024  # of a member's name, as UTF-8
MAX_NAME_BYTES = 255  # of each part of the name: the most that file systems take
HINTS = {
    "a link": ": pack what it leads to in its place (tar --dereference, zip without -y)",
    "a sparse file": ": pack without --sparse",
}


@dataclass(frozen=True)
class ArchiveLimits:
    """The most that an archive may unpack to: the number of files and folders, bytes in all and in one file."""

    files: int
    bytes: int
    file_bytes: int = MAX_FILE_BYTES


def unpack(archive: Path, folder: Path, limits: ArchiveLimits) -> list[str]:
    """Writes the archive's files below the new `folder`, without clutter, with names in NFC.

    Returns notes for the user. Raises ArchiveError, ArchiveTooLarge; OSError when the disk fails. Files that were
    written by then stay.
    """
    folder.mkdir()
    meter = Meter(limits.bytes, archive.stat().st_size)
    writer = _Writer(folder, limits, meter)
    with archive.open("rb") as file, damage_named():
        for member in members(file, meter):
            writer.write(member)
    if not (guessed := [*writer.guessed_folders, *writer.guessed_files]):
        return []
    return [
        "the archive does not say how its names are encoded; names that are not UTF-8 were read as code page 437: "
        f"{few(guessed)}. If they are wrong, pack the folder again with names in UTF-8, or as tar"
    ]


class _Writer:
    """A writer of members below one folder, whatever their names are. It counts them."""

    def __init__(self, folder: Path, limits: ArchiveLimits, meter: Meter) -> None:
        self.guessed_folders: dict[str, None] = {}  # in order, each once
        self.guessed_files: dict[str, None] = {}
        self._folder = folder
        self._limits = limits
        self._meter = meter
        self._members = 0
        self._folders = {folder}

    def write(self, member: Member) -> None:
        """Writes one member, unless it is clutter. Raises ArchiveError, ArchiveTooLarge."""
        name = _safe_name(member.name)
        self._members += 1
        self._require_within_limit(self._members, "files and folders")
        if any(map(is_clutter, name.parts)):
            return
        if member.kind not in ("file", "folder"):
            hint = HINTS.get(member.kind, "")
            raise ArchiveError(f"{member.name!r} should be a file or a folder, it is {member.kind}{hint}")
        path = self._folder / name
        try:
            self._make(path if member.kind == "folder" else path.parent)
            if member.kind == "file":
                self._copy(member, path)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"{member.name!r} cannot be written: another member has taken its place") from None
        if member.guessed:
            part = next(part for part in name.parts if not part.isascii())
            is_file = member.kind == "file" and part is name.parts[-1]
            (self.guessed_files if is_file else self.guessed_folders)[part] = None

    def _open(self, member: Member) -> Stream:
        """Opens the content of a member. A hard link has the content of the earlier member that it leads to."""
        if member.copied is None:
            return member.open()
        original = self._folder / _safe_name(member.copied)
        if not original.is_file():  # there are no links below the folder
            raise ArchiveError(
                f"{member.name!r} is a hard link to {member.copied!r}, which is no file that was unpacked before it: "
                "pack with tar --hard-dereference"
            )
        return Metered(original.open("rb"), self._meter)

    def _copy(self, member: Member, path: Path) -> None:
        copied = 0
        with contextlib.closing(self._open(member)) as source, path.open("xb") as target:
            while chunk := source.read(CHUNK_BYTES):
                copied += len(chunk)
                if copied > self._limits.file_bytes:
                    limit = self._limits.file_bytes
                    raise ArchiveTooLarge(f"a file should have at most {limit} bytes, {member.name!r} has more")
                target.write(chunk)

    def _make(self, folder: Path) -> None:
        """Makes a folder and those above it, each counted: one name may stand for hundreds."""
        if folder in self._folders:
            return
        self._make(folder.parent)
        folder.mkdir()
        self._folders.add(folder)
        self._require_within_limit(len(self._folders), "folders")

    def _require_within_limit(self, count: int, what: str) -> None:
        if count > self._limits.files:
            raise ArchiveTooLarge(f"an archive should have at most {self._limits.files} {what}, this one has more")


def _safe_name(name: str) -> PurePosixPath:
    """Returns where a member goes. Raises ArchiveError on a name that leads elsewhere or that no file can have."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ArchiveError(f"names should be UTF-8, {name!r} is not") from None
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:[/\\]", name):
        raise ArchiveError(f"names should lead to a place within the archive's folder, {name!r} does not")
    if size > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise ArchiveError(
            f"names should have at most {MAX_PATH_BYTES} bytes, {MAX_NAME_BYTES} in each part, "
            f"{name[:80] + '...'!r} has more"
        )
    return path
