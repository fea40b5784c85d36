import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from tests.training.images.pictures import SQUARE, encoded, photograph, quadrants, tiff
from training.contract.manifest import Preprocessing
from training.environment import FORMATS, MAX_PIXELS, RARE_FORMATS, Limits
from training.images.decode import MAX_FILE_BYTES, ImageError, decode
from training.images.resize import TURNS, Picture, resized

EVERYTHING = Limits(formats=",".join(FORMATS + RARE_FORMATS))
TORCHVISION = Path(__file__).parent / "data" / "torchvision"  # made by tests/parity/reference.py


def color(image: NDArray[np.uint8]) -> list[int]:
    """The one color of a uniform image."""
    assert (image == image[0, 0]).all()
    values: list[int] = image[0, 0].tolist()
    return values


def test_answer_is_uint8_rgb_of_the_size_asked_for() -> None:
    image = decode(encoded(photograph(50, 40)), Preprocessing(height=20, width=30))
    assert image.dtype == np.uint8
    assert image.shape == (20, 30, 3)


def test_right_size_is_left_alone(tmp_path: Path) -> None:
    source = photograph(32, 32)
    (tmp_path / "a.png").write_bytes(encoded(source))
    np.testing.assert_array_equal(decode(tmp_path / "a.png", SQUARE), np.asarray(source))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """A picture of a camera that was held like that is shown upright."""
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = quadrants(32)
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, "PNG", exif=exif), SQUARE)
    np.testing.assert_array_equal(image, np.asarray(quadrants(32)))


def test_transparency_lies_on_white() -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([10, 20, 30, 255, 0, 0])
    assert color(decode(encoded(palette, transparency=0), SQUARE)) == [255, 255, 255]
    assert color(decode(encoded(palette), SQUARE)) == [10, 20, 30]
    assert color(decode(encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0))), SQUARE)) == [255, 255, 255]
    assert color(decode(encoded(Image.new("LA", (32, 32), (0, 128))), SQUARE)) == [127, 127, 127]
    assert color(decode(encoded(Image.new("RGB", (32, 32), (1, 2, 3)), transparency=(1, 2, 3)), SQUARE)) == [255] * 3


@pytest.mark.parametrize("value", [0, 257, 40000, 65535])
def test_16_bit_is_cut_to_8(value: int) -> None:
    image = Image.fromarray(np.full((32, 32), value, np.uint16))
    assert color(decode(encoded(image), SQUARE)) == [value // 256] * 3


def test_other_modes() -> None:
    assert color(decode(encoded(Image.new("L", (32, 32), 77)), SQUARE)) == [77] * 3
    assert color(decode(encoded(Image.new("1", (32, 32), 1)), SQUARE)) == [255] * 3
    red = decode(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"), SQUARE)
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 8


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), name) for name in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert color(decode(content, SQUARE)) == [255, 0, 0]


@pytest.mark.parametrize("format", [*sorted({*FORMATS} - {"HEIF"}), "TGA", "ICO", "JPEG2000", "QOI", "ICNS", "PCX"])
def test_formats(format: str) -> None:
    image = decode(encoded(Image.new("RGB", (32, 32), (200, 100, 50)), format), SQUARE, EVERYTHING)
    assert np.abs(image.astype(int) - [200, 100, 50]).max() <= 6


def test_eps_never_reaches_ghostscript() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", SQUARE)
    assert caught.value.code == "not_an_image"


def test_dct_scaled_jpeg_is_close_to_a_full_decode() -> None:
    source = photograph(1600, 1200)
    content = encoded(source, "JPEG", quality=90)
    scaled = decode(content, Preprocessing(height=224, width=224)).astype(int)
    with Image.open(io.BytesIO(content)) as image:
        full = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), int)
    assert np.abs(scaled - full).mean() < 1


def halves(width: int, height: int) -> Image.Image:
    """Left half black, right half white."""
    image = Image.new("RGB", (width, height), "black")
    image.paste("white", (width // 2, 0, width, height))
    return image


def test_squash_keeps_all_and_distorts() -> None:
    preprocessing = Preprocessing(height=32, width=32, resize_mode="squash", interpolation="nearest")
    image = decode(encoded(halves(128, 32)), preprocessing)
    assert (image[:, :16] == 0).all()
    assert (image[:, 16:] == 255).all()


def test_crop_takes_the_middle_and_keeps_proportions() -> None:
    preprocessing = Preprocessing(height=32, width=32, resize_mode="crop", interpolation="nearest")
    wide = np.asarray(photograph(64, 32))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(wide)), preprocessing), wide[:, 16:48])
    tall = np.asarray(photograph(32, 64))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(tall)), preprocessing), tall[16:48])


@pytest.mark.parametrize(("interpolation", "resize"), [("bilinear", 64), ("bicubic", 59)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_resize_and_crop_are_torchvisions(interpolation: Any, resize: int, orientation: int) -> None:
    """Pixel for pixel, on a picture of 241 x 161; 59 is 56 / 0.95, rounded as timm rounds. Any: a Literal there."""
    preprocessing = Preprocessing(height=56, width=56, resize_mode="crop", resize=resize, interpolation=interpolation)
    with (
        Image.open(TORCHVISION / "picture.png") as picture,
        Image.open(TORCHVISION / f"{interpolation}-{resize}-56.png") as expected,
    ):
        turned = picture if orientation == 1 else picture.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = decode(encoded(turned, exif=exif), preprocessing)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_divided_where_its_pixels_are(orientation: int) -> None:
    """Neither side can be divided by 4: taken for whole, the divided image is up to half a pixel away."""
    stored = photograph(501, 701)
    stored.paste(photograph(150, 100).resize((501, 350), Image.Resampling.NEAREST), (0, 200))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        upright = image.convert("RGB").transpose(TURNS[orientation]) if orientation in TURNS else image.convert("RGB")
    preprocessing = Preprocessing(height=64, width=64, resize_mode="crop", resize=72)
    exact = np.asarray(resized(Picture(upright, upright.size), preprocessing), int)
    assert np.abs(decode(content, preprocessing).astype(int) - exact).mean() < 0.6


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1), (3, 2), (1000, 30)])
def test_a_strip_is_resized_in_bounded_memory(shape: tuple[int, int]) -> None:
    """As a whole, 1 x 200000 would become 256 x 51200000: 39 GB."""
    preprocessing = Preprocessing(height=224, width=224, resize_mode="crop", resize=256)
    assert color(decode(encoded(Image.new("RGB", shape, "red")), preprocessing)) == [255, 0, 0]


def test_a_crop_of_any_size_lies_within_the_image() -> None:
    """The last bit of a rounding put some boxes outside, and the picture was refused as damaged."""
    preprocessing = Preprocessing(height=224, width=224, resize_mode="crop")
    for width in range(1, 1200, 7):
        decode(encoded(Image.new("RGB", (width, 500)), "BMP"), preprocessing)


def test_pad_keeps_all_and_proportions_and_fills_with_black() -> None:
    preprocessing = Preprocessing(height=32, width=32, resize_mode="pad", interpolation="nearest")
    image = decode(encoded(Image.new("RGB", (64, 32), "white")), preprocessing)
    assert (image[8:24] == 255).all()
    assert (image[:8] == 0).all()
    assert (image[24:] == 0).all()


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes(mode: Any, size: tuple[int, int]) -> None:  # Any: a Literal in the model
    preprocessing = Preprocessing(height=32, width=32, resize_mode=mode)
    assert decode(encoded(Image.new("RGB", size, "red")), preprocessing).shape == (32, 32, 3)


def outcome(content: bytes) -> str:
    """The code of the ImageError, or "ok"; anything else that `decode` raises fails the test."""
    try:
        image = decode(content, SQUARE, Limits(max_pixels=1_000_000))
    except ImageError as error:
        return error.code
    assert image.shape == (32, 32, 3)
    return "ok"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_anywhere_is_an_image_error_or_an_image(format: str) -> None:
    content = encoded(photograph(40, 30), format)
    outcomes = [outcome(content[:length]) for length in range(0, len(content), max(1, len(content) // 60))]
    assert set(outcomes) <= {"ok", "empty_file", "not_an_image", "corrupt_image"}
    assert outcomes.count("ok") < len(outcomes) / 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "PPM", "TGA"])
def test_damaged_bytes_are_an_image_error_or_an_image(format: str) -> None:
    content = encoded(photograph(40, 30), format)
    random = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[random.integers(0, min(len(damaged), 200), 4)] = random.integers(0, 256, 4)
        outcomes.append(outcome(damaged.tobytes()))
    assert set(outcomes) <= {"ok", "not_an_image", "corrupt_image", "image_too_large"}
    assert outcomes.count("ok") < 55  # the damage is where a decoder looks


def test_damaged_exif_is_an_image_error_or_an_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photograph(40, 30), "JPEG", exif=exif)
    begin = content.index(b"Exif")
    outcomes = {
        outcome(content[:where] + bytes([value]) + content[where + 1 :])
        for where in range(begin, begin + 40)
        for value in (0, 1, 127, 255)
    }
    assert {"ok"} < outcomes <= {"ok", "not_an_image", "corrupt_image"}


def test_too_many_pixels() -> None:
    content = encoded(Image.new("RGB", (100, 100)))
    decode(content, SQUARE, Limits(max_pixels=10_000))
    with pytest.raises(ImageError, match="the limit is 9999 pixels, the image has 100 x 100") as caught:
        decode(content, SQUARE, Limits(max_pixels=9_999))
    assert caught.value.code == "image_too_large"


def test_bomb_is_refused_by_its_header() -> None:
    content = bytearray(encoded(Image.new("1", (8, 8))))
    content[16:24] = (60000).to_bytes(4, "big") * 2  # IHDR; the checksum is wrong then, so Pillow may complain of that
    with pytest.raises(ImageError):
        decode(bytes(content), SQUARE)
    big = encoded(Image.new("1", (20000, 20000)))  # 50 kB of file, 400 million pixels
    with pytest.raises(ImageError) as caught:
        decode(big, SQUARE)
    assert caught.value.code == "image_too_large"


def header_of_png(width: int, height: int) -> bytes:
    """A picture of one bit a pixel, of which no row is there."""
    png = encoded(Image.new("1", (8, 8)))
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = png[12:16] + size + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize("limit", [1_000, MAX_PIXELS, 2 * MAX_PIXELS, 400_000_000])
@pytest.mark.parametrize("pixels", [MAX_PIXELS, MAX_PIXELS + 1, 2 * MAX_PIXELS, 2 * MAX_PIXELS + 1, 199_756_800])
def test_the_limit_holds_whatever_its_size(pixels: int, limit: int) -> None:
    """Next to the levels at which Pillow warns and refuses."""
    with pytest.raises(ImageError) as caught:
        decode(header_of_png(pixels, 1), SQUARE, Limits(max_pixels=limit))
    assert caught.value.code == ("image_too_large" if pixels > limit else "corrupt_image")
    if pixels > limit:
        assert f"the limit is {limit} pixels" in caught.value.message
        assert str(pixels) in caught.value.message


def test_a_photograph_of_200_megapixels() -> None:
    gray = encoded(Image.new("L", (16_320, 12_240), 128), "JPEG", quality=10)
    assert color(decode(gray, SQUARE, Limits(max_pixels=16_320 * 12_240))) == [128] * 3
    with pytest.raises(ImageError, match="the limit is 199756799 pixels, the image has 16320 x 12240"):
        decode(gray, SQUARE, Limits(max_pixels=16_320 * 12_240 - 1))


def test_an_image_inside_of_another_is_held_to_the_limit() -> None:
    inner = encoded(Image.new("1", (4_000, 4_000)))
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 1, len(inner), 22)
    with pytest.raises(ImageError):
        decode(struct.pack("<HHH", 0, 1, 1) + entry + inner, SQUARE, Limits(max_pixels=1_000_000))


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int16])
def test_pixels_without_an_agreed_range_are_refused(kind: type) -> None:
    shades: NDArray[Any] = np.arange(1024, dtype=kind).reshape(32, 32)  # Any: each kind
    content = tiff(shades, bits=16, signed=True) if kind is np.int16 else encoded(Image.fromarray(shades), "TIFF")
    with pytest.raises(ImageError, match="have no agreed range") as caught:
        decode(content, SQUARE)
    assert caught.value.code == "unsupported_pixels"


@pytest.mark.parametrize("largest", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_a_graymap_is_scaled_by_its_own_largest_value(largest: int, plain: bool) -> None:
    shades = np.arange(1024) * largest // 1023
    samples = shades.astype(">u2" if largest > 255 else "u1").tobytes()
    pixels = " ".join(map(str, shades)).encode() if plain else samples
    image = decode(b"%s 32 32 %d " % (b"P2" if plain else b"P5", largest) + pixels, SQUARE, EVERYTHING)
    assert np.abs(image[..., 0].astype(int).ravel() - np.arange(1024) * 255 / 1023).max() <= 1


def test_a_tiff_of_12_bits_has_its_full_range() -> None:
    assert color(decode(tiff(np.full(32 * 32 * 3 // 2, 0x88, np.uint8), bits=12), SQUARE)) == [0x88] * 3


@pytest.mark.parametrize(("channels", "expected"), [(2, [120] * 3), (4, [187, 157, 137])])
def test_premultiplied_alpha(channels: int, expected: list[int]) -> None:
    pixel = [120, 255] if channels == 2 else [60, 30, 10, 128]
    assert color(decode(tiff(np.array(pixel * 32 * 32, np.uint8), channels=channels, alpha=1), SQUARE)) == expected


@pytest.mark.parametrize("step", ["load_end", "convert", "transpose", "resize"])
@pytest.mark.parametrize("error", [RecursionError("too deep"), MemoryError(), AttributeError("x"), struct.error("y")])
def test_whatever_pillow_raises_is_the_images_own_error(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("P", (64, 64)), exif=exif)
    monkeypatch.setattr(PngImageFile if step == "load_end" else Image.Image, step, fail)
    with pytest.raises(ImageError, match=str(error) or "MemoryError") as caught:
        decode(content, SQUARE)
    assert caught.value.code == "corrupt_image"


def test_an_interrupt_is_no_error_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    content = encoded(Image.new("L", (64, 64)))
    monkeypatch.setattr(Image.Image, "convert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(content, SQUARE)


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty_file"), (b"hello", "not_an_image"), (b"\xff\xd8\xff", "not_an_image")]
)
def test_codes(content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (content, tmp_path / "x.jpg"):
        with pytest.raises(ImageError) as caught:
            decode(source, SQUARE)
        assert caught.value.code == code


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="it should be a file, it is a named pipe"):
        decode(tmp_path / "pipe.jpg", SQUARE)
    with pytest.raises(OSError, match="it should be a file, it is a folder"):
        decode(tmp_path, SQUARE)


def test_a_file_has_a_limit_in_bytes(tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no room
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "large.jpg", SQUARE)
    assert caught.value.code == "file_too_large"


def test_the_limit_is_by_default_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("RGB", (100, 100)))
    assert decode(content, SQUARE).shape == (32, 32, 3)
    monkeypatch.setenv("RESNEXT_MAX_PIXELS", "9999")
    with pytest.raises(ImageError, match="the limit is 9999 pixels"):
        decode(content, SQUARE)
