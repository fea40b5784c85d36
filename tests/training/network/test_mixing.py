import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from training.network.mixing import blended, mix
from training.network.runtime import tf
from training.recipes import AUGMENTATIONS, Augmentation

COUNT = 200
PHOTO = load_sample_image("china.jpg").astype(np.float32)
IMAGES = np.stack([PHOTO[i : i + 24, 2 * i : 2 * i + 32] + i / COUNT for i in range(COUNT)])
TARGETS = np.eye(COUNT, dtype=np.float32)  # a class for each image: the targets say what is mixed
KEY = tf.constant([1, 2], tf.int64)
BEFORE = np.roll(np.arange(COUNT), 1)  # the image that each is mixed with


def mixes(**shares: float) -> Augmentation:
    return AUGMENTATIONS["none"].model_copy(update=shares)


def test_mixup_blends_images_and_targets_alike() -> None:
    images, targets = (part.numpy() for part in mix(tf.constant(IMAGES), tf.constant(TARGETS), mixes(mixup=1), KEY))
    own = targets[np.arange(COUNT), np.arange(COUNT)][:, None, None, None]
    np.testing.assert_allclose(images, own * IMAGES + (1 - own) * IMAGES[BEFORE], atol=1e-2)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert own.mean() == pytest.approx(0.5, abs=0.15)


def test_cutmix_pastes_one_box_and_counts_its_area() -> None:
    images, targets = (part.numpy() for part in mix(tf.constant(IMAGES), tf.constant(TARGETS), mixes(cutmix=1), KEY))
    other = (images == IMAGES[BEFORE]).all(axis=-1)
    assert (other | (images == IMAGES).all(axis=-1)).all()
    np.testing.assert_allclose(targets[np.arange(COUNT), BEFORE], other.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    for mask in other:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)  # a whole box
    assert other.mean() == pytest.approx(0.5, abs=0.07)


def test_each_takes_its_share_and_the_rest_stays_exactly() -> None:
    images, targets = (
        part.numpy() for part in mix(tf.constant(IMAGES), tf.constant(TARGETS), mixes(mixup=0.25, cutmix=0.25), KEY)
    )
    stayed = (images == IMAGES).all(axis=(1, 2, 3))
    assert 75 < stayed.sum() < 130
    np.testing.assert_array_equal(targets[stayed], TARGETS[stayed])


def test_blends_are_finite_shares_and_most_are_near_one_of_the_two() -> None:
    own = blended(20_000, KEY).numpy()
    assert ((own >= 0) & (own <= 1)).all()
    assert own.mean() == pytest.approx(0.5, abs=0.01)
    assert own.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.02)  # of Beta(0.2, 0.2)
