"""The regression that a head is made of."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from training.heads.features import Features
from training.heads.regression import Standardization, cross_validated, fit_head, probabilities_of


def digits(classes: int, each: int) -> tuple[Features, NDArray[np.int32]]:
    """Real digits as features: 64 numbers, some of them the same in all images."""
    pixels, labels = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(classes)])
    return pixels[rows].astype(np.float32), labels[rows].astype(np.int32)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_head_names_images_that_it_has_not_seen(classes: int) -> None:
    features, labels = digits(classes, 60)
    train = np.arange(len(labels)) % 2 == 0
    head, _ = fit_head(features[train], labels[train], classes, balanced=False, seed=0)
    assert (head.kernel.shape, head.bias.shape) == ((64, classes), (classes,))
    assert head.kernel.dtype == head.bias.dtype == np.float32
    right = probabilities_of(head, features[~train]).argmax(1) == labels[~train]
    assert right.mean() > 0.9


def test_features_that_say_nothing_get_no_weight() -> None:
    """A constant feature, divided by its spread, would have weights of hundreds that a fine-tuning cannot take."""
    features, labels = digits(3, 20)
    features[:, 0] = 5.0
    features[:, 1] = 1e-5 * labels
    head, _ = fit_head(features, labels, 3, balanced=False, seed=0)
    assert not head.kernel[:2].any()
    assert np.abs(head.kernel).max() < 1


def test_a_small_spread_has_a_floor() -> None:
    rng = np.random.default_rng(0)
    spreads = np.array([1.0] * 9 + [0.001], np.float32)
    factor = Standardization.of((rng.normal(size=(1000, 10)) * spreads).astype(np.float32)).factor
    assert factor[-1] == pytest.approx(1 / 0.3, rel=0.1)


def test_an_image_is_answered_by_a_head_that_has_not_seen_it() -> None:
    """With labels that nothing tells apart, a head that has seen the images would be right every time."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 200)).astype(np.float32)
    labels = rng.integers(0, 2, 60).astype(np.int32)
    answers = cross_validated(features, labels, 2, 100.0, balanced=False, seed=0)
    assert (answers.argmax(1) == labels).mean() < 0.75


@pytest.mark.parametrize("classes", [2, 3])
def test_the_only_image_of_a_class_is_answered_by_a_head_that_does_not_know_it(classes: int) -> None:
    features, labels = digits(classes, 5)
    few = np.concatenate([np.flatnonzero(labels < classes - 1), np.flatnonzero(labels == classes - 1)[:1]])
    answers = cross_validated(features[few], labels[few], classes, 0.1, balanced=False, seed=0)
    assert answers[-1, -1] == 0
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    head, _ = fit_head(features[few], labels[few], classes, balanced=False, seed=0)
    assert np.isfinite(head.bias).all()


def test_balanced_gives_a_rare_class_more_weight() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array([0, 1], np.int32), [95, 5])
    features = (rng.normal(size=(100, 4)) + labels[:, None]).astype(np.float32)
    named = [
        probabilities_of(fit_head(features, labels, 2, balanced=balanced, seed=0)[0], features).argmax(1).sum()
        for balanced in (False, True)
    ]
    assert named[1] > named[0]
