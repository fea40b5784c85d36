import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.images.pictures import SQUARE, encoded, photograph
from training.environment import Limits
from training.images.decode import ImageError, decode

KINDS: dict[str, dict[str, Any]] = {  # Any: Pillow's options
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "full chroma": {"subsampling": 0},
    "restart markers": {"restart_marker_blocks": 1},
    "restart markers of rows": {"restart_marker_rows": 1},
}
PICTURES = {
    "a photograph": photograph(150, 100),
    "in gray": photograph(150, 100).convert("L"),
    "of one color": Image.new("RGB", (150, 100), "red"),
    "small": photograph(32, 32),
}


def is_read(data: bytes) -> bool:
    try:
        decode(data, SQUARE)
    except ImageError:
        return False
    return True


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_without_its_end_marker_a_jpeg_is_what_it_was(kind: str, picture: str) -> None:
    whole = encoded(PICTURES[picture], "JPEG", **KINDS[kind])
    for missing in (1, 2):
        np.testing.assert_array_equal(decode(whole[:-missing], SQUARE), decode(whole, SQUARE))


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_with_pixels_missing_it_is_an_error(kind: str, picture: str) -> None:
    whole = encoded(PICTURES[picture], "JPEG", **KINDS[kind])
    lengths = np.linspace(whole.index(b"\xff\xda"), len(whole) * 0.9, 40, dtype=int)
    assert [length for length in lengths.tolist() if is_read(whole[:length])] == []


def test_a_progressive_one_that_ends_behind_a_scan_is_an_error() -> None:
    """All that is there is whole, and libjpeg draws all of the picture: coarser than it is."""
    whole = encoded(PICTURES["a photograph"], "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        tables = whole.rindex(b"\xff\xc4", 0, scan)  # each scan has its table before it
        assert not is_read(whole[:tables])
        assert not is_read(whole[:scan])


def test_jpeg_2000_is_read_without_its_end_marker() -> None:
    whole, limits = encoded(photograph(64, 64), "JPEG2000"), Limits(formats="JPEG2000")
    np.testing.assert_array_equal(decode(whole[:-2], SQUARE, limits), decode(whole, SQUARE, limits))
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(whole[: len(whole) * 9 // 10], SQUARE, limits)


@pytest.mark.parametrize(("format", "end"), [("PNG", 12), ("PNG", 16), ("GIF", 1)])
def test_so_are_other_formats(format: str, end: int) -> None:
    whole = encoded(photograph(64, 64), format)
    with Image.open(io.BytesIO(whole)) as image:
        assert image.format == format
    for missing in range(1, end + 1):
        np.testing.assert_array_equal(decode(whole[:-missing], SQUARE), decode(whole, SQUARE))
    assert not is_read(whole[: len(whole) * 9 // 10])


def test_without_its_end_marker_a_jpeg_may_have_half_of_the_pixels() -> None:
    """It is decoded three times, twice of them undivided."""
    whole = encoded(photograph(100, 100), "JPEG")
    assert decode(whole, SQUARE, Limits(max_pixels=10_000)).shape == (32, 32, 3)
    assert decode(whole[:-2], SQUARE, Limits(max_pixels=20_000)).shape == (32, 32, 3)
    message = "lacks its end marker, the limit is 9999 pixels, the image has 100 x 100"
    with pytest.raises(ImageError, match=message) as caught:
        decode(whole[:-2], SQUARE, Limits(max_pixels=19_999))
    assert caught.value.code == "image_too_large"
