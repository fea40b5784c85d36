"""The formats of archives: zip and tar, which the first bytes distinguish."""

import bz2
import contextlib
import errno
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import IO

from training.datasets.archive_members import PACK_AGAIN, Member, Meter, Stream
from training.datasets.tar_members import is_tar_header, tar_members
from training.datasets.zip_members import ZIP_MAGIC, zip_members
from training.errors import ArchiveError

EXPECTED = "a zip or tar archive as it is (tar also packed by gzip, bzip2 or xz)"
OTHER_FORMATS = {
    b"7z\xbc\xaf\x27\x1c": "as 7-Zip's own archives do",
    b"Rar!": "as RAR archives do",
    b"\x28\xb5\x2f\xfd": "as files packed by Zstandard do",
}
PACKED_TAR: dict[bytes, Callable[[IO[bytes]], Stream]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


def members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    """Yields the members of an archive; read each before asking for the next.

    Raises ArchiveError, and anything on hostile bytes: see `damage_named`.
    """
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith(ZIP_MAGIC):
        return zip_members(file, meter)
    for magic, unpacked in PACKED_TAR.items():
        if head.startswith(magic):
            begin = unpacked(file).read(tarfile.BLOCKSIZE)
            file.seek(0)
            if not is_tar_header(begin):
                raise ArchiveError(f"a packed file should hold a tar archive, unpacked it starts with {begin[:16]!r}")
            return tar_members(unpacked(file), meter)
    if not is_tar_header(head):
        came = f"it starts with {head[:16]!r}" if head else "it is empty"
        came += next((f", {known}" for magic, known in OTHER_FORMATS.items() if head.startswith(magic)), "")
        raise ArchiveError(f"the upload should be {EXPECTED}, {came}")
    return tar_members(file, meter)


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Turns what the parsers raise on damaged or hostile bytes into an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except NotImplementedError as error:
        raise ArchiveError(f"the archive uses a feature that is not read here, {error}: {PACK_AGAIN}") from None
    except UnicodeDecodeError as error:
        raise ArchiveError(f"names should be UTF-8, as the archive says, {error.object!r} is not") from None
    except MemoryError:
        raise ArchiveError("the archive's directory or dictionary does not fit in memory") from None
    except Exception as error:  # parsers raise anything on hostile bytes: OSError, ValueError, RecursionError ...
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: an offset that no file has
            raise  # a failure of the system, not of the archive
        raise ArchiveError(f"the archive is damaged or cut short: {error or type(error).__name__}") from error
