import numpy as np
import pytest
from PIL import Image

from tests.training.images.pictures import DATA, SQUARE, bmp_in_runs, encoded, photograph, quadrants
from training.contract.manifest import Preprocessing
from training.environment import FORMATS, RARE_FORMATS, Limits
from training.images.decode import ImageError, decode

NEVER = {"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"}  # Ghostscript runs for the first, the others are stubs
RED = Image.new("RGB", (32, 32), "red")
RARE = {
    **{format: encoded(RED, format) for format in ("DDS", "ICNS", "ICO", "JPEG2000", "PCX", "QOI", "SGI")},
    "PSD": b"8BPS\0\x01" + bytes(100),
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "BMP-RLE": bmp_in_runs(),
    "PPM-PLAIN": b"P3 1 1 255 255 0 0",
    "BIGTIFF": encoded(RED, "TIFF", big_tiff=True),
}
UPRIGHT, TURNED = ((DATA / name).read_bytes() for name in ("upright.heic", "turned.heic"))


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, SQUARE)
    return caught.value


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
@pytest.mark.parametrize("data", [UPRIGHT, TURNED], ids=["upright", "turned"])
def test_heic_is_read_and_turned_once(data: bytes, brand: bytes) -> None:
    image = decode(data[:8] + brand + data[12:], Preprocessing(height=64, width=64))
    assert np.abs(image.astype(int) - np.asarray(quadrants(64))).mean() < 2


def test_heic_is_turned_by_its_own_box_and_not_by_exif() -> None:
    turned = TURNED.replace(b"irot", b"free")  # a property that nobody knows
    image = decode(turned, Preprocessing(height=64, width=64)).astype(int)
    assert np.abs(image - np.rot90(np.asarray(quadrants(64)))).mean() < 2
    broken = TURNED[: TURNED.index(b"Exif\0\0MM")] + bytes(20) + TURNED[TURNED.index(b"Exif\0\0MM") + 20 :]
    np.testing.assert_array_equal(decode(broken, SQUARE), decode(TURNED, SQUARE))


def test_heic_has_the_limit_of_all() -> None:
    assert decode(UPRIGHT, SQUARE, Limits(max_pixels=64 * 64)).shape == (32, 32, 3)
    with pytest.raises(ImageError, match="the limit is 4095 pixels, the image has 64 x 64"):
        decode(UPRIGHT, SQUARE, Limits(max_pixels=64 * 64 - 1))
    place = UPRIGHT.index(b"ispe") + 8
    for side, code in [(60_000, "image_too_large"), (8, "corrupt_image")]:  # libheif heeds what the header says
        data = UPRIGHT[:place] + side.to_bytes(4, "big") * 2 + UPRIGHT[place + 8 :]
        assert refusal(data).code == code


def test_heic_cut_short_is_an_error() -> None:
    assert {refusal(UPRIGHT[:length]).code for length in range(1, len(UPRIGHT), 7)} == {"not_an_image", "corrupt_image"}


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_avif_is_read(brand: bytes) -> None:
    data = encoded(photograph(32, 32), "AVIF", quality=100, subsampling="4:4:4")
    image = decode(data[:8] + brand + data[12:], SQUARE)
    assert np.abs(image.astype(int) - np.asarray(photograph(32, 32))).mean() < 2


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE svg>\n<svg>', "an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6\x20\0\0\0", "PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"\n\n<HTML><head>", "an HTML page"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "a video"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1", "a video"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's raw"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw"),
        (b"PK\x03\x04\x14\0\0\0", "a zip"),
        (b"\x1f\x8b\x08\0", "a gzip"),
        (b"7z\xbc\xaf\x27\x1c", "an archive"),
        (b"\0\x05\x16\x07\0\2\0\0", "AppleDouble"),
    ],
)
def test_what_is_not_read_is_named(begin: bytes, told: str) -> None:
    error = refusal(begin + bytes(200))
    assert error.code == "not_an_image"
    assert error.message.startswith("the file is ")
    assert told in error.message
    assert "which is not read here; " in error.message


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF89a", "GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\1", "HEIF"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
    ],
)
def test_a_damaged_header_is_no_unknown_format(begin: bytes, name: str) -> None:
    error = refusal(begin)
    assert error.code == "not_an_image"
    assert error.message.startswith(f"the file begins as {name} does, but its header is damaged")


def test_what_nobody_knows_is_quoted() -> None:
    assert refusal(b"hello").message == "the file is in no known image format; it starts b'hello'"


def test_a_format_that_is_read_has_its_name_in_its_errors() -> None:
    data = encoded(Image.new("RGB", (32, 32)), "GIF")
    assert refusal(data[: len(data) // 2]).message.startswith("the GIF image cannot be decoded: ")


def test_every_format_of_pillow_is_common_rare_or_never_read() -> None:
    """A new one of Pillow is not read before somebody has thought of it."""
    kinds = {kind for kind in RARE_FORMATS if "-" in kind or kind == "BIGTIFF"}
    assert {*FORMATS, *RARE_FORMATS} - kinds == set(Image.OPEN) - NEVER
    assert not {*FORMATS} & {*RARE_FORMATS}


@pytest.mark.parametrize("kind", RARE)
def test_a_rare_format_is_refused_by_name(kind: str) -> None:
    error = refusal(RARE[kind])
    assert error.code == "not_an_image"
    assert error.message.startswith(f"the file is {kind}, which is read only where RESNEXT_FORMATS names it; ")


@pytest.mark.parametrize("kind", sorted(RARE.keys() - {"PSD", "FITS"}))
def test_a_rare_format_is_read_where_it_is_named(kind: str) -> None:
    image = decode(RARE[kind], SQUARE, Limits(formats=f"png, {kind.lower()}"))
    assert image[0, 0, 0] > 250
    assert image[0, 0, 1] < 5


def test_a_kind_of_a_format_does_not_stand_for_the_others() -> None:
    for kind, other in [("BMP-RLE", "BMP"), ("PPM-PLAIN", "PPM"), ("BIGTIFF", "TIFF")]:
        with pytest.raises(ImageError, match=f"the file is {other}, which is read only where"):
            decode(encoded(RED, other), SQUARE, Limits(formats=kind))


def test_a_common_format_that_is_not_named_is_not_read() -> None:
    for format in FORMATS:
        data = UPRIGHT if format == "HEIF" else encoded(RED, format)
        others = ",".join({*FORMATS} - {format})
        with pytest.raises(ImageError, match=f"the file is {format}, which is read only where") as caught:
            decode(data, SQUARE, Limits(formats=others))
        assert caught.value.code == "not_an_image"


def test_a_jpeg_of_several_images_is_a_jpeg() -> None:
    stereo = encoded(RED, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")])
    assert decode(stereo, SQUARE, Limits(formats="JPEG"))[0, 0, 0] > 250
