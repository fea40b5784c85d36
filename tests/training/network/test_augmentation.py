"""Each step changes what it should and nothing else; the same key gives the same draw."""

import colorsys

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from training.network.augmentation import STEPS, augment, boxes, color, erasing
from training.network.runtime import tf
from training.recipes import AUGMENTATIONS, Augmentation

PHOTO = load_sample_image("flower.jpg")[100:164, 200:296].astype(np.float32)
BATCH = tf.constant(np.stack([PHOTO] * 24))
KEY, OTHER = tf.constant([1, 2], tf.int64), tf.constant([1, 3], tf.int64)
LIGHT = np.array([0.299, 0.587, 0.114])


def only(**strengths: float) -> Augmentation:
    return AUGMENTATIONS["none"].model_copy(update=strengths)


def light(images: NDArray[np.float32]) -> NDArray[np.float64]:
    weighted: NDArray[np.float64] = images @ LIGHT
    return weighted


def test_no_strength_changes_nothing() -> None:
    assert augment(BATCH, only(), KEY) is BATCH


def test_every_strength_belongs_to_a_step_or_to_the_mixing() -> None:
    strengths = [name for step in STEPS.values() for name in step.strengths]
    assert sorted([*strengths, "mixup", "cutmix"]) == sorted(Augmentation.model_fields)


@pytest.mark.parametrize("strengths", [{"crop": 0.5}, {"saturation": 0.5}, {"effects": 1.0}, {"erasing": 1.0}])
def test_a_key_gives_the_same_draw_and_each_image_has_its_own(strengths: dict[str, float]) -> None:
    out = augment(BATCH, only(**strengths), KEY).numpy()
    np.testing.assert_array_equal(augment(BATCH, only(**strengths), KEY), out)
    assert not np.array_equal(augment(BATCH, only(**strengths), OTHER), out)
    assert len({image.tobytes() for image in out}) > 8
    assert out.shape == BATCH.shape
    assert out.min() >= 0
    assert out.max() <= 255


def test_brightness_multiplies_every_pixel() -> None:
    out = color(BATCH / 2, only(brightness=0.5), KEY).numpy()  # halved, so that nothing reaches 255
    ratios = (out / (PHOTO / 2 + 1e-6))[:, PHOTO.min(axis=-1) > 20]
    np.testing.assert_allclose(ratios.std(axis=(1, 2)), 0, atol=1e-3)
    factors = ratios.mean(axis=(1, 2))
    assert 0.5 <= factors.min() < 0.7
    assert 1.3 < factors.max() <= 1.5


def test_contrast_keeps_the_mean_light_and_scales_the_distance_from_it() -> None:
    gray = BATCH / 4 + 96
    out, mean = color(gray, only(contrast=0.5), KEY).numpy(), light(gray.numpy()[0]).mean()
    np.testing.assert_allclose(light(out).mean(axis=(1, 2)), mean, atol=0.05)
    spread = light(out).std(axis=(1, 2)) / light(gray.numpy()[0]).std()
    assert 0.5 <= spread.min() < 0.7
    assert 1.3 < spread.max() <= 1.501


@pytest.mark.parametrize("strengths", [{"saturation": 0.5}, {"hue": 0.5}])
def test_color_keeps_the_light_and_gray_stays_gray(strengths: dict[str, float]) -> None:
    pale = BATCH / 4 + 96
    out = color(pale, only(**strengths), KEY).numpy()
    np.testing.assert_allclose(light(out), light(pale.numpy()), atol=0.2)
    assert np.abs(out - pale).max() > 10
    gray = tf.repeat(pale[..., :1], 3, axis=-1)
    np.testing.assert_allclose(color(gray, only(**strengths), KEY), gray, atol=0.2)


def test_a_hue_turn_of_a_third_makes_red_green_or_blue() -> None:
    red = tf.tile(tf.constant([[[[150.0, 100, 100]]]]), (64, 1, 1, 1))
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in color(red, only(hue=0.5), KEY).numpy()[:, 0, 0] / 255]
    assert min(abs(hue - 1 / 3) for hue in hues) < 0.1
    assert min(abs(hue - 2 / 3) for hue in hues) < 0.1
    small = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in color(red, only(hue=0.02), KEY).numpy()[:, 0, 0] / 255]
    assert all(min(hue, 1 - hue) < 0.05 for hue in small)


def test_erasing_paints_one_box_of_one_color_and_leaves_the_rest() -> None:
    many = tf.constant(np.stack([PHOTO] * 300))
    out = erasing(many, only(erasing=0.5), KEY).numpy()
    changed = (out != PHOTO).any(axis=-1)
    assert 110 < changed.any(axis=(1, 2)).sum() < 190
    shares = []
    for picture, mask in zip(out, changed, strict=True):
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == box[0, 0]).all()
        shares.append(box[..., 0].size / mask.size)
    assert min(shares) < 0.05
    assert 0.2 < max(shares) < 0.36


def test_a_box_covers_the_pixels_whose_centers_it_has() -> None:
    half = tf.constant([0.5])
    mask = boxes(4, 8, tf.constant([0.25]), tf.constant([0.5]), half, half).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(mask, np.outer([0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1, 1]))
