"""Effects are those of Pillow, where it has them; one image gets one effect."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_image

from training.network.effects import EFFECTS, effects
from training.network.runtime import tf
from training.recipes import AUGMENTATIONS

WHOLE = load_sample_image("china.jpg") // 2 + 40  # neither black nor white
PHOTO = WHOLE[150:214, 100:196]
ALL = AUGMENTATIONS["none"].model_copy(update={"effects": 1.0})
HALF = AUGMENTATIONS["none"].model_copy(update={"effects": 0.5})
KEY = tf.constant([1, 2], tf.int64)


def applied(name: str, image: NDArray[np.uint8], strength: float) -> NDArray[np.float32]:
    batch = tf.constant(np.stack([image, image]).astype(np.float32))
    one, two = EFFECTS[name](batch, tf.fill((2, 1, 1, 1), strength)).numpy()
    np.testing.assert_array_equal(one, two)
    result: NDArray[np.float32] = one
    return result


@pytest.mark.parametrize(
    ("name", "strength", "theirs", "within"),
    [
        ("autocontrast", 0.0, lambda image: ImageOps.autocontrast(image), 1.0),
        ("equalize", 0.0, lambda image: ImageOps.equalize(image), 3.0),  # Pillow counts in whole steps
        ("posterize", 0.0, lambda image: ImageOps.posterize(image, 7), 0.0),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 2), 0.0),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128), 0.0),
        ("sharpness", 0.5, lambda image: image, 0.0),
        ("sharpness", 0.0, lambda image: image.filter(ImageFilter.SMOOTH), 1.0),
    ],
)
def test_an_effect_is_pillows(
    name: str, strength: float, theirs: Callable[[Image.Image], Image.Image], within: float
) -> None:
    difference = np.abs(applied(name, WHOLE, strength) - np.asarray(theirs(Image.fromarray(WHOLE)), np.float32))
    assert difference[1:-1, 1:-1].max() <= within + 1e-3  # Pillow leaves the edge as it is


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_image_of_one_color_stays_finite_and_of_one_color(name: str, value: int) -> None:
    out = applied(name, np.full((8, 8, 3), value, np.uint8), 0.8)
    assert np.isfinite(out).all()
    assert np.ptp(out) < 1e-3
    assert 0 <= out.min() <= out.max() <= 255.001
    if name in ("autocontrast", "equalize"):
        assert out[0, 0, 0] == value


def test_each_image_gets_its_own_effect_and_the_others_stay() -> None:
    photos = np.stack([np.roll(PHOTO, i, axis=1) for i in range(96)]).astype(np.float32)
    out = effects(tf.constant(photos), HALF, KEY).numpy()
    unchanged = (out == photos).all(axis=(1, 2, 3))
    assert 30 < unchanged.sum() < 66
    np.testing.assert_array_equal(effects(tf.constant(photos), HALF, KEY), out)
    # each is still in its place: it is most like the photo that it was
    likeness = np.abs(np.corrcoef(out.reshape(96, -1), photos.reshape(96, -1))[:96, 96:])
    assert (likeness.argmax(axis=1) == range(96)).mean() > 0.9


def test_a_batch_in_which_no_image_gets_an_effect_stays() -> None:
    one = tf.constant(PHOTO[None].astype(np.float32))
    keys = [tf.constant([0, seed], tf.int64) for seed in range(8)]
    assert any(np.array_equal(effects(one, HALF, key), one) for key in keys)
    assert not all(np.array_equal(effects(one, ALL, key), one) for key in keys)
