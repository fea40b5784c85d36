"""The members of a zip archive, whose names may be in several encodings. `zipfile` parses it."""

import contextlib
import functools
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from training.datasets.archive_members import PACK_AGAIN, Member, Meter, Metered, Stream
from training.errors import ArchiveError

SPLIT_ZIP_MAGIC = b"PK\x07\x08"  # also of a zip that was to be split and fits in one file
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", SPLIT_ZIP_MAGIC)
ZIP_METHODS = {  # methods that are not read here, by their numbers in the definition of the format
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
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags: a member, a strongly encrypted member, the directory
UTF8 = 0x800
UNICODE_PATH = 0x7075


def zip_members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    """Yields the members of a zip archive. Raises ArchiveError for what is encrypted or packed by another method."""
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
    """Returns a member's name, and whether its encoding is a guess. Windows may write `\\` between its parts.

    The name is the first of these: the UTF-8 name of the extra field; the name, if a flag says that it is UTF-8; the
    name, if it happens to be UTF-8, since macOS sets no flag; the name in code page 437, as the format demands.
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
    """Returns the name in Info-ZIP's extra field 0x7075, unless it was made for another name than the member's own."""
    while len(extra) >= 4:
        field, size = struct.unpack("<HH", extra[:4])
        data, extra = extra[4 : 4 + size], extra[4 + size :]
        if field == UNICODE_PATH and data[:5] == struct.pack("<BI", 1, zlib.crc32(raw)):
            with contextlib.suppress(UnicodeDecodeError):
                return data[5:].decode()
    return None


def _require_cp437(name: str) -> None:
    """Raises ArchiveError where code page 437 makes frames or formulas of a folder's name: it is in another code page.

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
