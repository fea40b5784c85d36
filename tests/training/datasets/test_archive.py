import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from training.datasets.archive import ArchiveLimits, unpack
from training.datasets.archive_members import HARMLESS_BYTES
from training.datasets.tar_members import MAX_TAR_HEADER_BYTES
from training.errors import ArchiveError, ArchiveTooLarge

LIMITS = ArchiveLimits(files=100, bytes=10**9)
FILES = {"cat/1.jpg": b"one" * 1000, "dog/2/3.jpg": b"two" * 500, "notes.txt": b""}

Make = Callable[[Mapping[str, bytes]], bytes]


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    return tar_of(*((member(name, len(data)), data) for name, data in files.items()), format=format)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, size: int = 0, type: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, type
    return info


def unpacked(tmp_path: Path, data: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    archive, folder = tmp_path / "archive", tmp_path / "folder"
    archive.write_bytes(data)
    unpack(archive, folder, limits)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(
    tmp_path: Path, data: bytes, limits: ArchiveLimits = LIMITS, error: type[ArchiveError] = ArchiveError
) -> str:
    with pytest.raises(error) as caught:
        unpacked(tmp_path, data, limits)
    assert caught.type is error
    assert {path.name for path in tmp_path.iterdir()} <= {"archive", "folder"}  # nothing beside, whatever it asked for
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    return str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        zipped,
        lambda files: zipped(files, zipfile.ZIP_STORED),
        lambda files: zipped(files, zipfile.ZIP_BZIP2),
        lambda files: zipped(files, zipfile.ZIP_LZMA),
        tarred,
        lambda files: tarred(files, tarfile.GNU_FORMAT),
        lambda files: tarred(files, tarfile.USTAR_FORMAT),
        lambda files: gzip.compress(tarred(files)),
        lambda files: bz2.compress(tarred(files)),
        lambda files: lzma.compress(tarred(files)),
    ],
)
def test_every_format_gives_the_same_files(tmp_path: Path, make: Make) -> None:
    assert unpacked(tmp_path, make(FILES)) == FILES


@pytest.mark.parametrize("make", [zipped, tarred])
def test_clutter_is_not_written(tmp_path: Path, make: Make) -> None:
    clutter = ("__MACOSX/cat/._1.jpg", ".DS_Store", "cat/Thumbs.db", "cat/.git/config", "dog/@eaDir/x.jpg")
    assert unpacked(tmp_path, make({**FILES, **dict.fromkeys(clutter, b"clutter")})) == FILES


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../evil.jpg", "cat/../../evil.jpg", "/tmp/evil.jpg", "//evil.jpg", "C:\\evil.jpg", "c:/evil.jpg"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, make: Make, name: str) -> None:
    message = refusal(tmp_path, make({"cat/1.jpg": b"good", name: b"evil"}))
    assert "should lead to a place within the archive's folder" in message
    assert "evil.jpg" in message


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        (tarfile.SYMTYPE, "a link: pack what it leads to in its place (tar --dereference, zip without -y)"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, type: bytes, kind: str) -> None:
    info = member("cat/trick.jpg", type=type)
    info.linkname = "/etc/passwd"
    message = refusal(tmp_path, tar_of((info, b"")))
    assert message == f"'cat/trick.jpg' should be a file or a folder, it is {kind}"


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (0o120777, "a link: pack what it leads to in its place (tar --dereference, zip without -y)"),
        (0o020666, "a device"),
        (0o010666, "a device"),
    ],
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int, kind: str) -> None:
    info = zipfile.ZipInfo("cat/trick.jpg")
    info.external_attr = mode << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert refusal(tmp_path, buffer.getvalue()) == f"'cat/trick.jpg' should be a file or a folder, it is {kind}"


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = member(name, type=tarfile.LNKTYPE)
    info.linkname = target
    return info, b""


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_hard_link_is_a_copy(tmp_path: Path, format: int) -> None:
    first = (member("./cat/1.jpg", 4), b"good")
    links = [hard_link("./cat/2.jpg", "./cat/1.jpg"), hard_link("dog/3.jpg", "cat/2.jpg")]
    files = unpacked(tmp_path, tar_of(first, *links, format=format))
    assert files == dict.fromkeys(("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"), b"good")
    (tmp_path / "folder/cat/1.jpg").write_bytes(b"changed")
    assert (tmp_path / "folder/cat/2.jpg").read_bytes() == b"good"


def test_what_is_packed_and_is_no_tar_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, gzip.compress(zipped({"cat/1.jpg": bytes(900)})))
    assert message.startswith("a packed file should hold a tar archive, unpacked it starts with b'PK\\x03\\x04")


@pytest.mark.parametrize("target", ["/etc/passwd", "../archive", "cat/../../archive"])
def test_a_hard_link_that_leads_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    message = refusal(tmp_path, tar_of(hard_link("cat/trick.jpg", target)))
    assert "should lead to a place within the archive's folder" in message


@pytest.mark.parametrize("target", ["cat/later.jpg", "cat/trick.jpg", "cat", ".hidden/1.jpg"])
def test_a_hard_link_to_what_was_not_unpacked_is_refused(tmp_path: Path, target: str) -> None:
    members = [(member("cat/1.jpg", 4), b"good"), (member(".hidden/1.jpg", 4), b"good")]
    later = (member("cat/later.jpg", 4), b"good")
    message = refusal(tmp_path, tar_of(*members, hard_link("cat/trick.jpg", target), later))
    assert message == (
        f"'cat/trick.jpg' is a hard link to {target!r}, which is no file that was unpacked before it: "
        "pack with tar --hard-dereference"
    )


def test_hard_links_count_as_the_bytes_that_they_become(tmp_path: Path) -> None:
    first = (member("cat/0.jpg", 50_000), os.urandom(50_000))
    links = [hard_link(f"cat/{i}.jpg", "cat/0.jpg") for i in range(1, 50)]
    message = refusal(tmp_path, tar_of(first, *links), ArchiveLimits(100, 200_000), ArchiveTooLarge)
    assert message == "an archive should unpack to at most 200000 bytes, this one has more"


def test_a_file_through_a_linked_folder_goes_nowhere(tmp_path: Path) -> None:
    link = member("cat", type=tarfile.SYMTYPE)
    link.linkname = str(tmp_path)
    assert "a link" in refusal(tmp_path, tar_of((link, b""), (member("cat/evil.jpg", 4), b"evil")))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_one_member_more_than_the_limit_is_refused(tmp_path: Path, make: Make) -> None:
    data = make({f"cat/{i}.jpg": b"x" for i in range(6)})
    message = refusal(tmp_path, data, ArchiveLimits(5, 10**6), ArchiveTooLarge)
    (tmp_path / "again").mkdir()
    assert len(unpacked(tmp_path / "again", data, ArchiveLimits(6, 10**6))) == 6
    assert message == "an archive should have at most 5 files and folders, this one has more"


def test_folders_that_a_name_implies_count(tmp_path: Path) -> None:
    deep = "/".join("abcdefghijkl") + "/1.jpg"
    message = refusal(tmp_path, zipped({deep: b"x"}), ArchiveLimits(10, 10**6), ArchiveTooLarge)
    assert message == "an archive should have at most 10 folders, this one has more"


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: gzip.compress(tarred(files))])
def test_too_many_bytes_are_refused(tmp_path: Path, make: Make) -> None:
    data = make({f"cat/{i}.jpg": os.urandom(50_000) for i in range(5)})
    message = refusal(tmp_path, data, ArchiveLimits(100, 200_000), ArchiveTooLarge)
    assert message == "an archive should unpack to at most 200000 bytes, this one has more"
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) < 300_000


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, make: Make) -> None:
    message = refusal(tmp_path, make({"cat/1.jpg": bytes(2001)}), ArchiveLimits(9, 10**6, 2000), ArchiveTooLarge)
    assert message == "a file should have at most 2000 bytes, 'cat/1.jpg' has more"


@pytest.mark.parametrize("make", [zipped, lambda files: gzip.compress(tarred(files))])
def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path, make: Make) -> None:
    bomb = make({f"cat/{i}.jpg": bytes(30 * 1024**2) for i in range(5)})
    message = refusal(tmp_path, bomb, LIMITS, ArchiveTooLarge)
    assert f"at most 200 times its size, this one has {len(bomb)} bytes" in message
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) <= HARMLESS_BYTES + 2**20


def test_what_is_skipped_counts_too(tmp_path: Path) -> None:
    bomb = gzip.compress(tarred({f".hidden/{i}": bytes(30 * 1024**2) for i in range(5)}))
    assert "200 times its size" in refusal(tmp_path, bomb, LIMITS, ArchiveTooLarge)


def test_a_zip_that_lies_about_sizes_gives_no_more_than_it_says(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat/1.jpg": bytes(10_000_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 100)  # uncompressed size
    assert "damaged" in refusal(tmp_path, bytes(data))
    assert (tmp_path / "folder/cat/1.jpg").stat().st_size <= 100


def test_a_zip_whose_members_overlap_is_counted_by_what_comes_out(tmp_path: Path) -> None:
    data = zipped({"cat/1.jpg": bytes(60 * 1024**2)})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry, files = data[start:end], 50
    directory = b"".join(entry.replace(b"cat/1.jpg", f"cat/{i:05}".encode()[:9]) for i in range(files))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, files, files, len(directory), start, 0)
    with pytest.raises(ArchiveError):
        unpacked(tmp_path, data[:start] + directory + tail)
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) <= HARMLESS_BYTES + 2**20


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.jpg", "one")
        archive.writestr("cat/1.jpg", "two")
    message = refusal(tmp_path, buffer.getvalue())
    assert message == "'cat/1.jpg' cannot be written: another member has taken its place"


@pytest.mark.parametrize(
    "names",
    [("cat", "cat/1.jpg"), ("cat/1.jpg", "cat"), ("cat/1.jpg", "./cat//1.jpg"), ("cat/é.jpg", "cat/e\u0301.jpg")],
)
def test_two_members_of_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    message = refusal(tmp_path, tarred(dict.fromkeys(names, b"x")))
    assert message == f"{names[1]!r} cannot be written: another member has taken its place"


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["cat/" + "é" * 128 + ".jpg", "a/" * 520 + "1.jpg"])
def test_names_that_are_too_long_are_refused(tmp_path: Path, make: Make, name: str) -> None:
    assert "names should have at most 1024 bytes, 255 in each part" in refusal(tmp_path, make({name: b"x"}))


def test_names_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    latin = tarred({"cat/caf_.jpg": b"x"}, tarfile.USTAR_FORMAT).replace(b"caf_", b"caf\xe9")
    header = bytearray(latin)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    assert "names should be UTF-8, 'cat/caf\\udce9.jpg' is not" in refusal(tmp_path, bytes(header))


def zip_of(*names: bytes, unicode: Mapping[bytes, str] | None = None, checksum: int | None = None) -> bytes:
    """Makes a zip of files with exactly these names. Those in `unicode` also get the field with a name in UTF-8."""
    body, directory = b"", b""
    for raw in names:
        extra = b""
        if unicode and raw in unicode:
            name = unicode[raw].encode("utf-8", "surrogateescape")
            crc = zlib.crc32(raw) if checksum is None else checksum
            extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, crc) + name
        head = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, zlib.crc32(raw), len(raw), len(raw), len(raw), len(extra))
        directory += b"PK\1\2\x14\0" + head + struct.pack("<3H2I", 0, 0, 0, 32, len(body)) + raw + extra
        body += b"PK\3\4" + head + raw + extra + raw
    count = len(names)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end


def notes(tmp_path: Path, data: bytes) -> list[str]:
    (tmp_path / "archive").write_bytes(data)
    return unpack(tmp_path / "archive", tmp_path / "noted", LIMITS)


@pytest.mark.parametrize("encoding", ["shift_jis", "cp932", "gb18030"])
def test_the_unicode_name_of_a_zip_counts(tmp_path: Path, encoding: str) -> None:
    names = {f"{label}/1.jpg".encode(encoding): f"{label}/1.jpg" for label in ("猫", "犬", "表")}
    data = zip_of(*names, unicode=names)
    assert unpacked(tmp_path, data) == {name: raw for raw, name in names.items()}
    assert notes(tmp_path, data) == []


def test_a_unicode_name_that_was_made_for_another_name_is_ignored(tmp_path: Path) -> None:
    data = zip_of(b"cat/1.jpg", unicode={b"cat/1.jpg": "dog/1.jpg"}, checksum=zlib.crc32(b"was/1.jpg"))
    assert list(unpacked(tmp_path, data)) == ["cat/1.jpg"]


def test_a_unicode_name_that_is_no_utf8_is_ignored(tmp_path: Path) -> None:
    data = zip_of(b"cat/1.jpg", unicode={b"cat/1.jpg": "caf\udce9/1.jpg"})
    assert list(unpacked(tmp_path, data)) == ["cat/1.jpg"]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/tmp/evil.jpg", "C:\\evil.jpg", "cat\\..\\..\\evil.jpg", "cat/evil.jpg\0"]
)
def test_a_unicode_name_is_checked_as_any(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, zip_of(b"cat/1.jpg", unicode={b"cat/1.jpg": name}))
    assert "should lead to a place within the archive's folder" in message


def test_two_members_of_one_unicode_name_are_refused(tmp_path: Path) -> None:
    data = zip_of(b"cat/1.jpg", b"cat/2.jpg", unicode={b"cat/2.jpg": "cat/1.jpg"})
    assert refusal(tmp_path, data) == "'cat/1.jpg' cannot be written: another member has taken its place"


def test_names_of_a_zip_that_are_no_utf8_are_in_code_page_437(tmp_path: Path) -> None:
    """The Explorer of Windows packs so: no flag, no field."""
    data = zip_of("café/1.jpg".encode("cp850"), "bête/é.jpg".encode("cp850"), b"chat/1.jpg", b"chat/\xe9.jpg")
    assert set(unpacked(tmp_path, data)) == {"café/1.jpg", "bête/é.jpg", "chat/1.jpg", "chat/Θ.jpg"}
    (note,) = notes(tmp_path, data)
    assert "were read as code page 437: 'café', 'bête', 'Θ.jpg'. If they are wrong, pack the folder again" in note


@pytest.mark.parametrize(
    ("label", "encoding"), [("кот", "cp866"), ("照片", "gbk"), ("maçã", "cp850"), ("고양이", "cp949")]
)
def test_a_folder_that_makes_no_sense_in_code_page_437_is_refused(tmp_path: Path, label: str, encoding: str) -> None:
    message = refusal(tmp_path, zip_of(f"{label}/1.jpg".encode(encoding)))
    assert message.startswith("names should be UTF-8, or in code page 437, where")
    assert "pack the folder again with names in UTF-8" in message


def test_a_zip_that_says_utf8_and_is_not(tmp_path: Path) -> None:
    data = bytearray(zip_of(b"caf\xe9/1.jpg"))
    for magic, offset in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        data[data.index(magic) + offset] |= 0x08
    assert refusal(tmp_path, bytes(data)) == r"names should be UTF-8, as the archive says, b'caf\xe9/1.jpg' is not"


def test_utf8_that_is_not_declared_is_understood(tmp_path: Path) -> None:
    """macOS writes so: no flag, and decomposed."""
    name = unicodedata.normalize("NFD", "žluť/猫.jpg")
    placeholder = "x" * len(name.encode())
    data = zipped({placeholder: b"x"}).replace(placeholder.encode(), name.encode())
    assert list(unpacked(tmp_path, data)) == [unicodedata.normalize("NFC", name)]


def test_backslashes_in_a_zip_are_folders(tmp_path: Path) -> None:
    assert list(unpacked(tmp_path, zipped({"cat\\1.jpg": b"x"}))) == ["cat/1.jpg"]


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    data = zipped({"cat/1.jpg_.txt": b"x"}).replace(b".jpg_", b".jpg\0")
    assert "should lead to a place within" in refusal(tmp_path, data)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat/1.jpg": b"secret"}))
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(tmp_path, bytes(data)) == "an archive should not be encrypted, 'cat/1.jpg' is"


def marked(data: bytes, local: int, central: int, value: int) -> bytes:
    """Changes one byte of a zip in each header of every member."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = changed.find(magic)
        while at >= 0:
            changed[at + offset] = value
            at = changed.find(magic, at + 4)
    return bytes(changed)


@pytest.mark.parametrize(
    ("method", "name"),
    [(1, "Shrink"), (6, "Implode"), (9, "Deflate64"), (93, "Zstandard"), (95, "XZ"), (98, "PPMd"), (77, "method 77")],
)
def test_how_a_zip_is_packed_is_told(tmp_path: Path, method: int, name: str) -> None:
    message = refusal(tmp_path, marked(zipped({"cat/1.jpg": b"one"}), 8, 10, method))
    assert message == (
        f"'cat/1.jpg' is packed with {name}, which is not read here: pack it again with Deflate, or as tar"
    )


def test_other_features_that_are_not_read_are_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, marked(zipped({"cat/1.jpg": b"one"}), 6, 8, 0x20))
    assert message.startswith(
        "the archive uses a feature that is not read here, compressed patched data (flag bit 5): pack it again"
    )


@pytest.mark.parametrize(("local", "central", "value"), [(8, 10, 99), (6, 8, 0x41), (7, 9, 0x20)])
def test_any_encryption_is_told(tmp_path: Path, local: int, central: int, value: int) -> None:
    message = refusal(tmp_path, marked(zipped({"cat/1.jpg": b"one"}), local, central, value))
    assert message == "an archive should not be encrypted, 'cat/1.jpg' is"


def test_an_encrypted_list_of_members_is_told(tmp_path: Path) -> None:
    data = bytearray(marked(zipped({"cat/1.jpg": b"one"}), 7, 9, 0x20))
    start = data.index(b"PK\1\2")
    data[start : start + 20] = os.urandom(20)
    message = refusal(tmp_path, bytes(data))
    assert message == "an archive should not be encrypted, this one is, with its list of members"


def test_a_part_of_a_split_zip_is_told(tmp_path: Path) -> None:
    data = b"PK\7\x08" + zipped({"cat/1.jpg": b"one"})
    assert unpacked(tmp_path, data) == {"cat/1.jpg": b"one"}  # all of it
    (tmp_path / "part").mkdir()
    message = refusal(tmp_path / "part", data[:60])
    assert message == "an archive should be one file, this is one of several: join them (zip -s 0)"


@pytest.mark.parametrize(
    "make",
    [
        zipped,
        tarred,
        lambda files: gzip.compress(tarred(files)),
        lambda files: bz2.compress(tarred(files)),
        lambda files: lzma.compress(tarred(files)),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, make: Make, share: float) -> None:
    data = make({f"cat/{i}.jpg": os.urandom(5000) for i in range(20)}).rstrip(b"\0")
    assert "damaged or cut short" in refusal(tmp_path, data[: int(len(data) * share)])


def test_a_tar_that_is_cut_between_members_is_refused(tmp_path: Path) -> None:
    data = tarred({f"cat/{i}.jpg": bytes(512) for i in range(20)})
    assert "damaged or cut short" in refusal(tmp_path, data[: 10 * 1024])


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tarred({f"cat/{i}.jpg": bytes(512) for i in range(20)}))
    data[10 * 1024] ^= 0xFF
    assert "damaged or cut short" in refusal(tmp_path, bytes(data))


@pytest.mark.parametrize("make", [zipped, lambda files: gzip.compress(tarred(files))])
def test_changed_bytes_are_noticed(tmp_path: Path, make: Make) -> None:
    data = bytearray(make({"cat/1.jpg": os.urandom(5000)}))
    data[len(data) // 2] ^= 0xFF
    assert "damaged" in refusal(tmp_path, bytes(data))


def test_an_extended_header_of_any_size_is_not_read(tmp_path: Path) -> None:
    """tarfile would take all of it into memory."""
    for type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        header = member("x", 40 * 1024**2, type).tobuf(tarfile.GNU_FORMAT)
        bomb = gzip.compress(header + bytes(40 * 1024**2), 1)
        place = tmp_path / type.decode()
        place.mkdir()
        assert f"should have 0 to {MAX_TAR_HEADER_BYTES} bytes" in refusal(place, bomb)


def test_the_map_of_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    header = bytearray(member("cat/1.jpg", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # it goes on in the next block
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    more = b"00000000001\0" * 42 + b"\x01" + bytes(7)  # and so does each
    assert "it is a sparse file" in refusal(tmp_path, bytes(header) + more * 100)


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    header = bytearray(member("cat/1.jpg").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    assert "one says -512" in refusal(tmp_path, bytes(header) * 3 + bytes(1024))


def test_a_chain_of_extended_headers_ends(tmp_path: Path) -> None:
    chain = b"".join(member("x", 4, tarfile.GNUTYPE_LONGNAME).tobuf() + b"name".ljust(512, b"\0") for _ in range(3000))
    assert "damaged" in refusal(tmp_path, chain + bytes(1024))


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (b"", "it is empty"),
        (b"\xff\xd8\xff\xe0 a photo", "it starts with b'\\xff\\xd8\\xff\\xe0 a photo'"),
        (b"--boundary\r\nContent-Disposition: form-data", "it starts with b'--boundary\\r\\nCont'"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), 'it starts with b"7z'),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "as 7-Zip's own archives do"),
        (b"Rar!\x1a\x07\x00" + bytes(600), "as RAR archives do"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "as files packed by Zstandard do"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes, came: str) -> None:
    message = refusal(tmp_path, data)
    assert message.startswith("the upload should be a zip or tar archive as it is")
    assert came in message


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(100), b"BZh9" + bytes(100)])
def test_what_only_begins_like_an_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "damaged or cut short" in refusal(tmp_path, data)


def test_a_disk_that_fails_is_not_the_archives_fault(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError):
        unpacked(tmp_path, zipped(FILES))
