"""The members of a zip or tar archive, as it has them: names as they stand, bytes counted as they come out.

The two formats are told apart by their first bytes. `zipfile` and `tarfile` parse; where they would take damage for the
archive's end, or a header of any size into memory, this does not let them.
"""

import bz2
import contextlib
import errno
import functools
import gzip
import io
import lzma
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol, Self

from training.errors import ArchiveError, ArchiveTooLarge

MAX_RATIO = 200  # unpacked to packed bytes; images hardly shrink, tar's padding of small ones may by 50
HARMLESS_BYTES = 64 * 1024**2  # the ratio counts from here on
MAX_TAR_HEADER_BYTES = 1024**2  # of an extended header, which tarfile reads into memory as a whole
CHUNK_BYTES = 1024**2

EXPECTED = "a zip or tar archive as it is (tar also packed by gzip, bzip2 or xz)"
SPLIT_ZIP_MAGIC = b"PK\x07\x08"  # also of one that was to be split, and fits in one file
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", SPLIT_ZIP_MAGIC)
OTHER_FORMATS = {
    b"7z\xbc\xaf\x27\x1c": "as 7-Zip's own archives do",
    b"Rar!": "as RAR archives do",
    b"\x28\xb5\x2f\xfd": "as what Zstandard has packed does",
}
ZIP_METHODS = {  # that are not read here, by their numbers in the format's definition
    **dict.fromkeys((2, 3, 4, 5), "Reduce"),
    **dict.fromkeys((20, 93), "Zstandard"),
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    10: "DCL Implode",
    18: "TERSE",
    19: "LZ77",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
}
READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
AES = 99
PACK_AGAIN = "pack it again with Deflate, or as tar"
ENCRYPTED = 0x1 | 0x40 | 0x2000  # a member, strongly, and the directory
UTF8 = 0x800
UNICODE_PATH = 0x7075


class Stream(Protocol):
    """What an archive is read through."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


PACKED_TAR: dict[bytes, Callable[[IO[bytes]], Stream]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Member:
    """One entry as the archive has it. `kind` is file, folder, or what is refused, with its article.

    `copied` is the name of the earlier member that a hard link is another name of. `guessed` says that the archive
    does not tell its names' encoding.
    """

    name: str
    kind: str
    open: Callable[[], Stream]
    copied: str | None = None
    guessed: bool = False


class Meter:
    """Counts the bytes that come out of an archive, whether they are kept or not."""

    def __init__(self, limit: int, archive_bytes: int) -> None:
        self._limit = limit
        self._archive_bytes = archive_bytes
        self._bytes = 0

    def count(self, more: int) -> None:
        self._bytes += more
        if self._bytes > self._limit:
            raise ArchiveTooLarge(f"an archive should unpack to at most {self._limit} bytes, this one has more")
        if self._bytes > max(HARMLESS_BYTES, MAX_RATIO * self._archive_bytes):
            raise ArchiveTooLarge(
                f"an archive should unpack to at most {MAX_RATIO} times its size, this one has {self._archive_bytes} "
                f"bytes and gave {self._bytes} before it was stopped"
            )


class Metered(io.RawIOBase):
    """A stream, counted as it is read."""

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._meter.count(len(data))
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


def members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    """Each member, to be read before the next one. Raises ArchiveError, ArchiveTooLarge, anything on hostile bytes."""
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith(ZIP_MAGIC):
        return _zip_members(file, meter)
    for magic, unpacked in PACKED_TAR.items():
        if head.startswith(magic):
            begin = unpacked(file).read(tarfile.BLOCKSIZE)
            file.seek(0)
            if not _is_tar_header(begin):
                raise ArchiveError(f"what is packed should be a tar archive, unpacked it starts with {begin[:16]!r}")
            return _tar_members(unpacked(file), meter)
    if not _is_tar_header(head):
        came = f"it starts with {head[:16]!r}" if head else "it is empty"
        came += next((f", {known}" for magic, known in OTHER_FORMATS.items() if head.startswith(magic)), "")
        raise ArchiveError(f"the upload should be {EXPECTED}, {came}")
    return _tar_members(file, meter)


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return block.count(0) == tarfile.BLOCKSIZE  # an archive of nothing
    return True


def _zip_members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    with _zip_file(file) as archive:
        for info in archive.infolist():
            name, guessed = _zip_name(info)
            if info.flag_bits & ENCRYPTED or info.compress_type == AES:
                raise ArchiveError(f"an archive should not be encrypted, {name!r} is")
            if info.compress_type not in READ_METHODS:
                method = ZIP_METHODS.get(info.compress_type, f"method {info.compress_type}")
                raise ArchiveError(f"{name!r} is packed with {method}, which is not read here: {PACK_AGAIN}")
            kind = "folder" if name.endswith("/") else _unix_kind(info)
            yield Member(name, kind, functools.partial(_open_zipped, archive, info, meter), guessed=guessed)


def _zip_file(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.seek(0)
        head = file.read(8)
        if head.startswith(SPLIT_ZIP_MAGIC):
            raise ArchiveError("an archive should be one file, this is one of several: join them (zip -s 0)") from None
        if int.from_bytes(head[6:], "little") & ENCRYPTED:  # the first member's flags
            raise ArchiveError("an archive should not be encrypted, this one is, with its list of members") from None
        raise


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, meter: Meter) -> Stream:
    return Metered(archive.open(info), meter)


def _zip_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name, and whether its encoding is a guess. Windows may write `\\` between its parts.

    It is the first of these: the UTF-8 name of the extra field; the name, where a flag says that it is UTF-8; the name,
    where it happens to be UTF-8, which macOS does not say; the name in code page 437, as the format wants.
    """
    name = info.orig_filename  # `filename` is cut at a NUL
    raw = name.encode() if info.flag_bits & UTF8 else name.encode("cp437")
    guessed = False
    if (unicode := _unicode_path(info.extra, raw)) is not None:
        name = unicode
    elif not info.flag_bits & UTF8:
        try:
            name = raw.decode()
        except UnicodeError:
            _require_cp437(name)
            guessed = True
    return name.replace("\\", "/"), guessed


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's extra field 0x7075, unless it was made for another name than the member's own."""
    while len(extra) >= 4:
        field, size = struct.unpack("<HH", extra[:4])
        data, extra = extra[4 : 4 + size], extra[4 + size :]
        if field == UNICODE_PATH and data[:5] == struct.pack("<BI", 1, zlib.crc32(raw)):
            with contextlib.suppress(UnicodeDecodeError):
                return data[5:].decode()
    return None


def _require_cp437(name: str) -> None:
    """Raises ArchiveError for a folder's name that code page 437 makes frames or formulas of: it is in another one.

    A file's own name does not matter to a dataset.
    """
    folders = name.replace("\\", "/").rpartition("/")[0]
    if not all(char.isascii() or unicodedata.name(char, "").startswith("LATIN ") for char in folders):
        raise ArchiveError(
            f"names should be UTF-8, or in code page 437, where {name!r} makes no sense: pack the folder again with "
            "names in UTF-8 (7-Zip: -mcu=on), or as tar"
        )


def _unix_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "a link"}
    return kinds.get(mode, "a device")


class _TarMember(tarfile.TarInfo):
    """Does not take damage for the archive's end, as tarfile does, nor read a header of any size into memory."""

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


def _tar_members(stream: Stream, meter: Meter) -> Iterator[Member]:
    counted = Metered(stream, meter)  # as a whole: what is skipped costs time too
    with tarfile.open(fileobj=counted, mode="r|", encoding="utf-8", tarinfo=_TarMember) as archive:
        while (member := archive.next()) is not None:
            copied = member.linkname if member.islnk() else None
            opened = functools.partial(_open_tarred, archive, member)
            yield Member(member.name, _tar_kind(member), opened, copied)
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it; a million of them are a gigabyte
    while counted.read(CHUNK_BYTES):
        pass  # to the end, where the checksum is


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


@contextlib.contextmanager
def damage_told() -> Iterator[None]:
    """What the parsers raise on bytes that are not as they should be becomes an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except NotImplementedError as error:
        raise ArchiveError(f"the archive has what is not read here, {error}: {PACK_AGAIN}") from None
    except UnicodeDecodeError as error:
        raise ArchiveError(f"names should be UTF-8, as the archive says, {error.object!r} is not") from None
    except MemoryError:
        raise ArchiveError("the archive's directory or dictionary does not fit in memory") from None
    except Exception as error:  # parsers raise anything on hostile bytes: OSError, ValueError, RecursionError ...
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place no file has
            raise  # the system's
        raise ArchiveError(f"the archive is damaged or cut short: {error or type(error).__name__}") from error
