import io
import json
import lzma
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets.store import ARCHIVE_FILE, REPORT_FILE, REVISION_FOLDER, SUMMARY_FILE

DICTIONARY_OF_4_GIB = 40  # as the xz format writes it


def run(*arguments: str, gone: bool = False) -> tuple[int, str]:
    """Returns exit status and the last line of stderr. With `gone` the parent has ended already."""
    command = [sys.executable, "-m", "training.datasets.intake", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stderr
    if gone:
        process.stdin.close()
    words = process.stderr.read()
    status = process.wait(60)
    process.stdin.close()
    process.stderr.close()
    return status, words.strip().splitlines()[-1] if words.strip() else ""


def unpack(work: Path, archive: bytes, *, gone: bool = False) -> tuple[int, str]:
    work.mkdir()
    (work / ARCHIVE_FILE).write_bytes(archive)
    return run("unpack", str(work), "photos", "--max-files=5000", "--max-bytes=1000000000", gone=gone)


def archive_of(count: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i, image in enumerate(pixels):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "PNG")
            info = tarfile.TarInfo(f"{'ab'[i % 2]}/{i}.png")
            info.size = len(encoded.getvalue())
            archive.addfile(info, io.BytesIO(encoded.getvalue()))
    return buffer.getvalue()


def test_an_archive_becomes_a_revision(tmp_path: Path) -> None:
    assert unpack(tmp_path / "work", archive_of(12)) == (0, "")
    revision = tmp_path / "work" / REVISION_FOLDER
    assert {path.name for path in revision.iterdir()} == {"images", REPORT_FILE, SUMMARY_FILE}
    assert not (tmp_path / "work" / ARCHIVE_FILE).exists()
    assert json.loads((revision / SUMMARY_FILE).read_text())["images"] == 12


def test_the_reason_is_the_last_line(tmp_path: Path) -> None:
    status, words = unpack(tmp_path / "work", b"no archive")
    assert (status, words.split()[:2]) == (1, ["error:", "ArchiveError"])


@pytest.mark.parametrize(("place", "code"), [("/dev/full", "StorageFull"), ("/nowhere/x", "StorageUnavailable")])
def test_a_disk_that_fails_has_a_code_of_its_own(tmp_path: Path, place: str, code: str) -> None:
    assert unpack(tmp_path / "work", archive_of(12)) == (0, "")
    (tmp_path / SUMMARY_FILE).symlink_to(place)
    status, words = run("check", str(tmp_path / "work" / REVISION_FOLDER / "images"), str(tmp_path))
    assert (status, words.split()[:2]) == (1, ["error:", code])


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    status, _ = unpack(tmp_path / "work", archive_of(4000), gone=True)
    assert status == 70
    assert not (tmp_path / "work" / REVISION_FOLDER / REPORT_FILE).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux'")
def test_an_archive_can_not_ask_for_any_amount_of_memory(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(archive_of(12)))
    header = 12  # of the first block, after the stream's
    size = (packed[header] + 1) * 4
    assert packed[header + 2] == 0x21  # LZMA2
    packed[header + 4] = DICTIONARY_OF_4_GIB
    packed[header + size - 4 : header + size] = zlib.crc32(packed[header : header + size - 4]).to_bytes(4, "little")
    status, words = unpack(tmp_path / "work", bytes(packed))
    assert status == 1
    assert words == "error: ArchiveError the archive's directory or dictionary does not fit in memory"
