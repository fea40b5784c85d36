"""What takes a few bytes and is passed over one by one: 3 MB of it kept all threads of Python waiting for 0.6 s."""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.training.images.pictures import SQUARE, encoded, photograph, tiff_of_tags
from training.images.decode import ImageError, decode
from training.images.metadata import without_metadata

MANY = 70_000
PHOTO = photograph(40, 30)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def after(data: bytes, begin: int, parts: bytes) -> bytes:
    return data[:begin] + parts + data[begin:]


JPEG, PNG, WEBP, GIF = (encoded(PHOTO, format) for format in ("JPEG", "PNG", "WEBP", "GIF"))
TABLES = JPEG.index(b"\xff\xdb")
BEFORE_PIXELS = GIF.index(b",\0\0\0\0")
FILES = {
    "comments of a JPEG": after(JPEG, 2, b"\xff\xfe\0\2" * MANY),
    "tables of a JPEG": after(JPEG, 2, b"\xff\xdb\0\2" * MANY),
    "pieces of pixels of a PNG": after(PNG, 33, chunk(b"IDAT") * MANY),
    "texts of a PNG": after(PNG, 33, chunk(b"tEXt") * MANY),
    "unknown chunks of a WebP": after(WEBP, 12, b"ABCD\0\0\0\0" * MANY),
    "blocks of a GIF": after(GIF, BEFORE_PIXELS, b"!\xff\x0bNETSCAPE2.0" + b"\1a" * (2 * MANY) + b"\0"),
    "characters of a comment of a PPM": b"P6 #" + b"a" * (4 * MANY) + b"\n1 1 255\n\0\0\0",
    "strips of a TIFF": tiff_of_tags({256: 32, 257: 32, 278: 1, 273: [8] * MANY, 279: [32] * MANY}, bytes(1024)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_a_bounded_number_of_parts(name: str) -> None:
    with pytest.raises(ImageError, match="the limit is ") as caught:
        decode(FILES[name], SQUARE)
    assert caught.value.code == "image_too_large"


@pytest.mark.parametrize("filling", [b"\xff", b"\0", b"\xff\0", b"\xff\xd0", b"\xff\1"])
@pytest.mark.parametrize("sound", [True, False])
def test_filling_between_the_segments_of_a_jpeg_is_passed_over_at_once(filling: bytes, sound: bool) -> None:
    """20 kB of fill bytes took 1.2 s, and twice as many four times as long: each began a new search to the end."""
    begun = time.thread_time()
    if sound:
        np.testing.assert_array_equal(decode(after(JPEG, TABLES, filling * 100_000), SQUARE), decode(JPEG, SQUARE))
    else:
        with pytest.raises(ImageError, match="begins as JPEG does"):
            decode(JPEG[:TABLES] + filling * 100_000, SQUARE)
    assert time.thread_time() - begun < 10


def test_a_file_may_have_thousands_of_parts() -> None:
    """As libpng writes a large picture, and as a camera's profile is cut into segments."""
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(PHOTO)))
    pieces = b"".join(chunk(b"IDAT", pixels[at : at + 1]) for at in range(len(pixels)))
    header = PNG[:33]
    np.testing.assert_array_equal(decode(header + pieces + chunk(b"IEND"), SQUARE), decode(PNG, SQUARE))
    assert decode(after(JPEG, 2, b"\xff\xfe\0\2" * 5_000), SQUARE).shape == (32, 32, 3)
    rows = tiff_of_tags({256: 32, 257: 20_000, 278: 1, 273: [8] * 20_000, 279: [32] * 20_000}, bytes(1024))
    assert decode(rows, SQUARE).shape == (32, 32, 3)
    assert decode(encoded(Image.new("L", (64, 64)), "GIF", comment=b"a" * 100_000), SQUARE).shape == (32, 32, 3)


def test_a_jpeg_without_pixels_is_cut_where_its_parser_would_look_for_them_byte_by_byte() -> None:
    plain, _ = without_metadata(JPEG[:TABLES] + bytes(1_000_000))
    assert len(plain) < 70_000
