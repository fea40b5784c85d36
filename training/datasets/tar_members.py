"""The members of a tar archive. `tarfile` parses it.

It is kept from taking damage for the end of the archive, and from reading a header of any size into memory.
"""

import functools
import tarfile
from collections.abc import Iterator
from typing import Self

from training.datasets.archive_members import CHUNK_BYTES, Member, Meter, Metered, Stream
from training.errors import ArchiveError

MAX_TAR_HEADER_BYTES = 1024**2  # of an extended header: tarfile reads the whole header into memory


def is_tar_header(block: bytes) -> bool:
    """Whether a tar archive begins with this block of 512 bytes."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return block.count(0) == tarfile.BLOCKSIZE  # an empty archive
    return True


class _TarMember(tarfile.TarInfo):
    """A member that does not take damage for the end of the archive, nor read a header of any size into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ArchiveError(f"{member.name!r} should be a file or a folder, it is a sparse file")
        extended = (*(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE), *tarfile.GNU_TYPES)
        if member.size < 0 or (member.type in extended and member.size > MAX_TAR_HEADER_BYTES):
            raise ArchiveError(f"a header should have 0 to {MAX_TAR_HEADER_BYTES} bytes, one says {member.size}")
        return member

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it; a block of zeros
            raise
        except tarfile.HeaderError as error:
            raise ArchiveError(f"the archive is damaged or cut short: {error}") from error


def tar_members(stream: Stream, meter: Meter) -> Iterator[Member]:
    """Yields the members of a tar archive, which is read once, from its start to its end."""
    counted = Metered(stream, meter)  # the whole stream: skipped bytes cost time too
    with tarfile.open(fileobj=counted, mode="r|", encoding="utf-8", tarinfo=_TarMember) as archive:
        while (member := archive.next()) is not None:
            copied = member.linkname if member.islnk() else None
            opened = functools.partial(_open_tarred, archive, member)
            yield Member(member.name, _tar_kind(member), opened, copied)
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it; a million members are a gigabyte
    while counted.read(CHUNK_BYTES):
        pass  # reads to the end, where the checksum is


def _open_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Stream:
    stream = archive.extractfile(member)
    assert stream  # None stands for a folder, a device
    return stream


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file"
    if member.isreg() or member.islnk():
        return "file"
    if member.isdir():
        return "folder"
    return "a link" if member.issym() else "a device"
