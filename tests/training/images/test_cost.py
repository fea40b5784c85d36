import io

import pytest
from PIL import Image

from tests.training.images.pictures import (
    DATA,
    SQUARE,
    encoded,
    jpeg_of_scans,
    photograph,
    tiff_of_tags,
)
from training.environment import Limits
from training.images.cost import TABLES_BYTES, memory_of
from training.images.decode import ImageError, decode

ENOUGH = 64_000_000
HEIC = (DATA / "upright.heic").read_bytes()  # 64 x 64


def refusal(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, SQUARE, limits)
    assert caught.value.code == "image_too_large"
    return caught.value.message


def memory(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
        image.draft("RGB", (SQUARE.width, SQUARE.height))
        return memory_of(image, size, data, ENOUGH)


@pytest.mark.parametrize(
    ("side", "scans", "most"), [(100, 101, 100), (3_000, 10_000, 100), (8_000, 21, 20), (8_000, 2_000, 20)]
)
def test_a_jpeg_has_few_scans_for_its_size(side: int, scans: int, most: int) -> None:
    """20 kB of them kept a thread at work for a minute."""
    message = f"the limit is {most} scans for a JPEG of {side * side} pixels, the image has {scans}"
    assert refusal(jpeg_of_scans(side, side, scans)) == message


def test_a_jpeg_of_as_many_scans_as_an_encoder_makes_is_read() -> None:
    assert decode(jpeg_of_scans(64, 64, 100), SQUARE).shape == (32, 32, 3)
    assert decode(jpeg_of_scans(1_000, 1_000, 20), SQUARE).shape == (32, 32, 3)
    assert decode(encoded(photograph(300, 200), "JPEG", progressive=True), SQUARE).shape == (32, 32, 3)


def test_scans_of_a_sequential_jpeg_count_too() -> None:
    assert "the image has 500" in refusal(jpeg_of_scans(64, 64, 500, progressive=False))


def test_scans_cannot_be_hidden_behind_what_looks_like_the_end() -> None:
    data = jpeg_of_scans(64, 64, 200)
    table = data.index(b"\xff\xdb") + 5
    assert "the image has 200" in refusal(data[:table] + b"\xff\xd9" + data[table + 2 :])


@pytest.mark.parametrize("progressive", [True, False])
def test_what_lies_behind_the_end_is_no_scan(progressive: bool) -> None:
    """A phone puts a video there, in which any two bytes stand by chance."""
    data = encoded(photograph(64, 48), "JPEG", progressive=progressive)
    assert (decode(data + b"\xff\xda\0\x08" * 1_000, SQUARE) == decode(data, SQUARE)).all()


def test_a_tiff_has_tiles_of_about_its_own_size() -> None:
    tags: dict[int, int | list[int]] = {256: 32, 257: 32, 324: 8, 325: 1024}
    assert decode(tiff_of_tags({**tags, 322: 32, 323: 32}, bytes(1024)), SQUARE).shape == (32, 32, 3)
    message = refusal(tiff_of_tags({**tags, 322: 16_384, 323: 16_384}, bytes(1024)))
    assert "32 x 32 of TIFF" in message
    assert message.endswith(f"take as long as {16_384**2}")


def test_a_tiff_has_each_strip_once() -> None:
    """Half of the picture 60,000 times: a copy for each."""
    tags: dict[int, int | list[int]] = {256: 1_000, 257: 1_000, 278: 500, 279: [500_000] * 60_000}
    assert "take as long as" in refusal(tiff_of_tags({**tags, 273: [8] * 60_000}, bytes(500_000)))
    sound = tiff_of_tags({**tags, 273: [8, 8], 279: [500_000] * 2}, bytes(500_000))
    assert decode(sound, SQUARE).shape == (32, 32, 3)


def test_a_slow_format_has_a_limit_in_bytes_too() -> None:
    data = HEIC + (2_000).to_bytes(4) + b"free" + bytes(1_992)
    cost = 64 * 64 // 2 + 4 * len(data)
    assert decode(data, SQUARE, Limits(max_pixels=cost)).shape == (32, 32, 3)
    told = f"the limit is {cost - 1} pixels, and 64 x 64 of HEIF in {len(data)} bytes take as long as {cost}"
    assert refusal(data, Limits(max_pixels=cost - 1)) == told


def test_a_decoder_in_python_has_a_small_limit() -> None:
    qoi = encoded(Image.new("RGB", (100, 100)), "QOI")
    assert decode(qoi, SQUARE, Limits(max_pixels=320_000, formats="QOI")).shape == (32, 32, 3)
    assert "take as long as 320000" in refusal(qoi, Limits(max_pixels=319_999, formats="QOI"))


def test_an_image_laid_together_of_others_is_refused() -> None:
    assert "overlay" in refusal(HEIC.replace(b"hvc1\0", b"iovl\0", 1))


def test_the_cost_of_an_ordinary_file_is_its_pixels() -> None:
    for format in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        data = encoded(photograph(64, 64), format)
        assert decode(data, SQUARE, Limits(max_pixels=64 * 64)).shape == (32, 32, 3)


def test_code_tables_of_a_lossless_webp_are_memory() -> None:
    """290 kB for a picture of one megapixel took 362 MB."""
    picture = photograph(64, 64)
    lossless, lossy = (encoded(picture, "WEBP", lossless=lossless) for lossless in (True, False))
    assert memory(lossy) == 16 * 64 * 64 + len(lossy)
    assert memory(lossless) == 16 * 64 * 64 + len(lossless) + 64 * 64 // 16 * TABLES_BYTES


def test_coefficients_of_a_jpeg_of_several_scans_are_memory() -> None:
    whole, divided = 800 * 600, 100 * 75
    for image, components in [(photograph(800, 600), 3), (photograph(800, 600).convert("L"), 1)]:
        at_once, progressive = (encoded(image, "JPEG", progressive=progressive) for progressive in (False, True))
        assert memory(at_once) == 4 * divided + len(at_once)
        assert memory(progressive) == 4 * divided + 2 * components * whole + len(progressive)
