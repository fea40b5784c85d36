"""Pixels decide, not metadata: pictures whose only fault lies beside their pixels are read as if it were not there."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.training.images.pictures import SQUARE, encoded, photograph
from training.images.decode import ImageError, decode
from training.images.metadata import orientation_of

PHOTO = photograph(32, 32)
TURNED = PHOTO.transpose(Image.Transpose.ROTATE_270)  # what orientation 6 makes of it


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def damaged(kind: bytes, content: bytes = b"Comment\0hi") -> bytes:
    """A chunk whose checksum is wrong."""
    return chunk(kind, content)[:-1] + b"?"


def in_png(made: bytes, image: Image.Image = PHOTO) -> bytes:
    """Behind the header."""
    png = encoded(image)
    return png[:33] + made + png[33:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def in_jpeg(made: bytes) -> bytes:
    jpeg = encoded(PHOTO, "JPEG")
    return jpeg[:2] + made + jpeg[2:]


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A block of tags: number, type, count and value in four bytes."""
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    begin = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + begin + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(4)


TURN = (274, 3, 1, struct.pack("<H", 6))
ODD_TAGS = {
    "a resolution in letters": (282, 2, 4, b"72\0\0"),
    "a resolution outside of the file": (282, 10, 1, struct.pack("<I", 2**31)),
    "a comment of 2 GB": (270, 2, 2**31, b"abcd"),
    "a type that there is not": (283, 99, 1, b"abcd"),
    "a directory in itself": (34665, 4, 1, struct.pack("<I", 8)),
    "a directory outside of the file": (34853, 4, 1, struct.pack("<I", 2**31)),
}
BROKEN_EXIF = [
    b"Exif\0\0",
    b"Exif\0\0II*\0",
    exif(TURN)[:-20],
    b"Exif\0\0XX*\0" + bytes(30),
    b"Exif\0\0II*\0\xff\xff\xff\xff",
]


def assert_is(data: bytes, expected: NDArray[np.uint8] | Image.Image) -> None:
    np.testing.assert_array_equal(decode(data, SQUARE), np.asarray(expected))


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_a_number_in_either_byte_order(number: int, order: str) -> None:
    short = struct.pack(f"{order}H", number)
    assert orientation_of(exif((274, 3, 1, short), order=order)) == number
    assert (
        orientation_of(exif((271, 2, 4, b"Me\0\0"), (274, 4, 1, struct.pack(f"{order}I", number)), order=order))
        == number
    )


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_orientations_that_there_are_not_turn_nothing(number: int) -> None:
    assert orientation_of(exif((274, 3, 1, struct.pack("<H", number)))) == 1


@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_whatever_else_its_exif_says(format: str, odd: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    expected = decode(encoded(PHOTO, format, **options), SQUARE)
    for tags, turned in [((TURN, ODD_TAGS[odd]), True), ((ODD_TAGS[odd],), False)]:
        picture = decode(encoded(PHOTO, format, exif=exif(*tags), **options), SQUARE)
        np.testing.assert_array_equal(picture, np.rot90(expected, -1) if turned else expected)


@pytest.mark.parametrize("block", BROKEN_EXIF)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_is_no_orientation(format: str, block: bytes) -> None:
    expected = decode(encoded(PHOTO, format, quality=90), SQUARE)
    assert_is(encoded(PHOTO, format, exif=block, quality=90), expected)


TEXT_OF_2_MB = zlib.compress(b"x" * 2_000_000)
PROFILE_OF_2_MB = zlib.compress(np.random.default_rng(0).bytes(2_000_000))
ANCILLARY = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"bKGD", b"sBIT", b"hIST"]
ANCILLARY += [b"eXIf", b"acTL", b"fcTL", b"tRNS", b"prVt"]


@pytest.mark.parametrize(
    "made",
    [
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TEXT_OF_2_MB),
        chunk(b"zTXt", b"Comment\0\0" + TEXT_OF_2_MB),
        chunk(b"zTXt", b"Comment\0\0no zlib"),
        chunk(b"iCCP", b"p\0\0" + PROFILE_OF_2_MB),
        chunk(b"iCCP", b"p\0\7" + PROFILE_OF_2_MB),
        *[damaged(kind) for kind in ANCILLARY],
        *[chunk(kind, b"") for kind in ANCILLARY],
        *[chunk(kind, b"a") for kind in ANCILLARY],
    ],
)
def test_png_is_read_whatever_its_ancillary_chunks_hold(made: bytes) -> None:
    assert_is(in_png(made), PHOTO)
    png = encoded(PHOTO)
    assert_is(png[:-12] + made + png[-12:], PHOTO)


def test_what_a_png_says_of_transparency_and_orientation_counts() -> None:
    blue = Image.new("RGB", (32, 32), (1, 2, 3))
    assert (decode(in_png(chunk(b"tRNS", b"\0\1\0\2\0\3"), blue), SQUARE) == 255).all()
    assert (decode(in_png(damaged(b"tRNS", b"\0\1\0\2\0\3"), blue), SQUARE) == [1, 2, 3]).all()
    assert_is(in_png(chunk(b"eXIf", exif(TURN)[6:])), TURNED)
    assert_is(in_png(damaged(b"eXIf", exif(TURN)[6:])), PHOTO)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_critical_chunks_stay_strict(kind: bytes) -> None:
    png = encoded(PHOTO.convert("P"))
    begin = png.index(kind)
    (length,) = struct.unpack_from(">I", png, begin - 4)
    assert decode(png, SQUARE).shape == (32, 32, 3)
    for place in (begin + 4, begin + 4 + length):  # content, checksum
        spoilt = bytearray(png)
        spoilt[place] ^= 1
        with pytest.raises(
            ImageError, match=f"PNG image cannot be decoded: the checksum of its chunk {kind.decode()} does not fit"
        ) as caught:
            decode(bytes(spoilt), SQUARE)
        assert caught.value.code == "corrupt_image"


def test_a_text_of_a_gigabyte_is_not_unpacked() -> None:
    packer = zlib.compressobj(9)
    text = b"".join([*(packer.compress(bytes(16 * 1024**2)) for _ in range(64)), packer.flush()])
    data = in_png(chunk(b"zTXt", b"Comment\0\0" + text))
    tracemalloc.start()
    try:
        assert_is(data, PHOTO)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) < 8 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("default", [True, False])
def test_an_animated_png_gives_its_first_image(default: bool) -> None:
    more = [photograph(32, 32).rotate(90), photograph(32, 32).rotate(180)]
    assert_is(encoded(PHOTO, save_all=True, append_images=more, default_image=default), PHOTO)


@pytest.mark.parametrize(
    "made",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\x05abc"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        segment(0xE2, b"FPXR\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\4"),
        segment(0xEE, b"Adobe"),
        segment(0xE7, b"x" * 65000),
        segment(0xFE, b""),
        b"\xff\xff\xff" + segment(0xFE, b"behind fill bytes"),
    ],
)
def test_jpeg_is_read_whatever_its_application_segments_hold(made: bytes) -> None:
    assert_is(in_jpeg(made), decode(encoded(PHOTO, "JPEG"), SQUARE))


def test_colours_of_a_jpeg_stay_what_its_segments_make_them() -> None:
    for image, options in [(PHOTO, {"keep_rgb": True}), (PHOTO.convert("CMYK"), {}), (PHOTO.convert("L"), {})]:
        content = encoded(image, "JPEG", quality=95, subsampling=0, **options)
        difference = np.abs(decode(content, SQUARE).astype(int) - np.asarray(image.convert("RGB")))
        assert difference.max() < 24


def test_webp_is_read_though_its_metadata_is_cut_short() -> None:
    expected = decode(encoded(PHOTO, "WEBP", lossless=True), SQUARE)
    content = encoded(PHOTO, "WEBP", lossless=True, exif=exif(TURN), xmp=b"x" * 1000)
    assert_is(content, np.rot90(expected, -1))
    assert_is(content[:-600], np.rot90(expected, -1))
    with pytest.raises(ImageError, match="WebP image cannot be decoded"):
        decode(content[: content.index(b"EXIF") - 20], SQUARE)


def tiff(*more: tuple[int, int, int, bytes]) -> bytes:
    """An uncompressed gray picture."""
    gray = PHOTO.convert("L").tobytes()
    numbers = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: 1, 278: 32, 279: len(gray)}
    tags = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in numbers.items()]
    tags += [*more, (273, 4, 1, struct.pack("<I", 8 + 2 + 12 * (len(tags) + len(more) + 1) + 4))]
    return exif(*sorted(tags))[6:] + gray


@pytest.mark.parametrize("odd", ODD_TAGS)
def test_tiff_is_read_and_turned_whatever_its_tags_about_other_things_hold(odd: str) -> None:
    gray = PHOTO.convert("L").convert("RGB")
    assert_is(tiff(), gray)
    assert_is(tiff(TURN), gray.transpose(Image.Transpose.ROTATE_270))
    assert_is(tiff(ODD_TAGS[odd]), gray)
    assert_is(tiff(TURN, ODD_TAGS[odd]), gray.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"])
def test_a_tiff_keeps_what_its_pixels_need(compression: str | None) -> None:
    image = PHOTO.convert("1") if compression == "group4" else PHOTO
    stored = encoded(image, "TIFF", compression=compression, dpi=(300, 300), description="a photograph")
    with Image.open(io.BytesIO(stored)) as opened:
        assert_is(stored, opened.convert("RGB"))


def test_avif_is_turned_by_its_own_box_alone() -> None:
    options = {"quality": 100, "subsampling": "4:4:4"}
    expected = decode(encoded(PHOTO, "AVIF", **options), SQUARE)
    content = encoded(
        PHOTO, "AVIF", exif=exif((271, 2, 4, b"Me\0\0"), TURN), **options
    )  # Pillow writes the box from it
    assert_is(content, np.rot90(expected, -1))
    assert_is(content.replace(b"II*\0", b"XX*\0"), np.rot90(expected, -1))


def test_a_block_of_exif_that_begins_a_million_times_is_read_at_once() -> None:
    """Each beginning was cut off by a copy of the rest."""
    block = exif(TURN)
    assert orientation_of(block[:6] * 1_000_000 + block[6:]) == 6


def test_the_orientation_is_looked_for_among_as_many_tags_as_a_camera_writes() -> None:
    comment = (270, 2, 4, b"abcd")
    assert orientation_of(exif(*[comment] * 499, TURN)) == 6
    assert orientation_of(exif(*[comment] * 500, TURN)) == 1
