import numpy as np
import pytest

from tests.training.images.pictures import DATA, SQUARE, heif_of_tiles, quadrants
from training.contract.manifest import Preprocessing
from training.environment import Limits
from training.images.decode import ImageError, decode
from training.images.heif_tiles import tile_pixels

SOUND = heif_of_tiles(2, 128, 64)


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, SQUARE)
    return caught.value


def test_a_picture_in_tiles_is_read() -> None:
    image = decode(SOUND, Preprocessing(height=64, width=128, resize_mode="squash"))
    twice = np.concatenate([np.asarray(quadrants(64))] * 2, axis=1)
    assert np.abs(image.astype(int) - twice).mean() < 3
    assert tile_pixels(SOUND) == 2 * 64 * 64


def test_tiles_have_about_the_pixels_that_they_show() -> None:
    """Each was decoded, shown or not: 21 kB took 23 s."""
    data = heif_of_tiles(200, 64, 64)
    cost = 200 * 64 * 64 // 2 + 4 * len(data)
    assert decode(data, SQUARE, Limits(max_pixels=cost)).shape == (32, 32, 3)
    with pytest.raises(ImageError, match=f"64 x 64 of HEIF in {len(data)} bytes take as long as {cost}") as caught:
        decode(data, SQUARE, Limits(max_pixels=cost - 1))
    assert caught.value.code == "image_too_large"


def test_tiles_of_tiles_are_counted_too() -> None:
    assert tile_pixels(heif_of_tiles(200, 64, 64, depth=3)) == 200 * 64 * 64
    with pytest.raises(ValueError, match="made of images that are made of images"):
        tile_pixels(heif_of_tiles(2, 64, 64, depth=6))


def test_a_picture_without_tiles_has_its_own_pixels() -> None:
    assert tile_pixels((DATA / "upright.heic").read_bytes()) == 64 * 64


@pytest.mark.parametrize("kind", [b"pitm", b"iprp", b"ipco", b"ispe", b"ipma"])
def test_tiles_that_are_not_found_are_an_error_and_no_way_round(kind: bytes) -> None:
    error = refusal(SOUND.replace(kind, b"free"))
    assert error.code in {"corrupt_image", "not_an_image"}
    with pytest.raises(ValueError, match=r"the file should have one box|has no size"):
        tile_pixels(SOUND.replace(kind, b"free"))


def test_two_headers_are_an_error_for_which_of_them_counts() -> None:
    with pytest.raises(ValueError, match="should have one box meta at its place, it has 2"):
        tile_pixels(SOUND + SOUND)


def test_what_a_phone_puts_behind_the_boxes_is_passed_over() -> None:
    assert tile_pixels(SOUND + b"SEFH\0\0\0\1") == 2 * 64 * 64
