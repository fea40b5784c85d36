import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from training.datasets.layout import Sample
from training.datasets.loading import Split
from training.network.pipeline import evaluation_batches, steps_per_epoch, training_batches, weighted
from training.network.runtime import keras, tf
from training.recipes import AUGMENTATIONS, Augmentation

PHOTO = load_sample_image("china.jpg")
NOTHING = AUGMENTATIONS["none"]
TUTORIAL = AUGMENTATIONS["tutorial"]
MODERN = AUGMENTATIONS["modern"]

Batch = tuple[NDArray[np.float32], ...]


def pieces(count: int, size: int = 48) -> Split:
    """Different pieces of a photograph, in three classes."""
    corners = [(i * 7 % (PHOTO.shape[0] - size), i * 13 % (PHOTO.shape[1] - size)) for i in range(count)]
    images = np.stack([PHOTO[top : top + size, left : left + size] for top, left in corners])
    labels = np.arange(count, dtype=np.int32) % 3
    return Split(images, labels, [Sample(Path(f"{i}.jpg"), f"{i}.jpg", i % 3) for i in range(count)])


def take(dataset: tf.data.Dataset, batches: int) -> list[Batch]:
    return list(itertools.islice(dataset.as_numpy_iterator(), batches))


def epoch(split: Split, number: int, seed: int = 0, augmentation: Augmentation = NOTHING) -> list[Batch]:
    dataset = training_batches(split, 3, 8, augmentation, seed, first_epoch=number)
    return take(dataset, steps_per_epoch(len(split), 8))


def rows(batches: list[Batch], split: Split) -> list[int]:
    """Returns the row in the split of each image of the batches."""
    return [int(np.flatnonzero((split.images == image).all((1, 2, 3)))[0]) for images, _ in batches for image in images]


def equal(one: list[Batch], two: list[Batch]) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


def test_an_epoch_shows_every_image_once_and_fills_its_last_batch() -> None:
    split = pieces(21)
    batches = epoch(split, 0)
    assert [images.shape for images, _ in batches] == [(8, 48, 48, 3)] * 3
    seen = rows(batches, split)
    assert sorted(seen[:21]) == list(range(21))
    assert seen[21:] == seen[:3]
    targets = np.concatenate([targets for _, targets in batches])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.eye(3)[split.labels[seen]])


def test_a_batch_is_never_larger_than_the_dataset() -> None:
    split = pieces(5)
    ((images, _),) = take(training_batches(split, 3, 32, NOTHING, 0), 1)
    assert len(images) == 5
    assert steps_per_epoch(5, 32) == 1
    assert steps_per_epoch(64, 32) == 2
    assert steps_per_epoch(65, 32) == 3


def test_each_epoch_has_its_own_order_and_augmentation() -> None:
    split = pieces(24)
    first, second = (rows(epoch(split, number), split) for number in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    ones = pieces(1)
    looks = [image for number in range(4) for image in epoch(ones, number, augmentation=TUTORIAL)[0][0]]
    assert len({look.tobytes() for look in looks}) == 4


def test_a_seed_gives_the_same_batches_and_another_seed_others() -> None:
    split = pieces(24)
    once = epoch(split, 2, seed=5, augmentation=TUTORIAL)
    assert equal(once, epoch(split, 2, seed=5, augmentation=TUTORIAL))
    assert not equal(once, epoch(split, 2, seed=6, augmentation=TUTORIAL))
    assert not equal(epoch(split, 0, seed=1), epoch(split, 0, seed=1 + 2**31))


@pytest.mark.parametrize("augmentation", [TUTORIAL, MODERN], ids=["tutorial", "modern"])
def test_a_resumed_run_gets_the_batches_of_an_unbroken_one(augmentation: Augmentation) -> None:
    split = pieces(21)
    steps = steps_per_epoch(21, 8)
    unbroken = take(training_batches(split, 3, 8, augmentation, 0), 3 * steps)
    resumed = take(training_batches(split, 3, 8, augmentation, 0, first_epoch=2), steps)
    assert equal(unbroken[2 * steps :], resumed)
    within = take(training_batches(split, 3, 8, augmentation, 0, first_epoch=1, first_step=2), 2)
    assert equal(unbroken[steps + 2 : steps + 4], within)


def test_mixed_targets_sum_to_1() -> None:
    targets = np.concatenate([targets for _, targets in epoch(pieces(40), 0, augmentation=MODERN)])
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    mixed = (targets.max(axis=1) < 1).sum()
    assert 8 <= mixed <= 28  # half of 40, by chance; some meet their own class


def test_class_weights_come_as_keras_own_where_nothing_is_mixed() -> None:
    split, weights = pieces(21), np.array([0.5, 1, 2], np.float32)
    plain = take(training_batches(split, 3, 8, NOTHING, 0), 3)
    for (images, targets, weight), (same, labels) in zip(
        take(training_batches(split, 3, 8, NOTHING, 0, class_weights=weights), 3), plain, strict=True
    ):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(targets, labels)
        np.testing.assert_array_equal(weight, weights[labels.argmax(axis=1)])


def test_each_part_of_a_mixed_image_counts_by_the_weight_of_its_class() -> None:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    logits, weights = tf.constant([[0.3, -1.2, 2.0]]), np.array([0.5, 1, 4], np.float32)
    targets, weight = weighted(tf.constant([[0.7, 0.0, 0.3]]), weights)
    one, two = (float(loss(np.eye(3)[None, label], logits)[0]) for label in (0, 2))
    assert float(weight[0] * loss(targets, logits)[0]) == pytest.approx(0.7 * 0.5 * one + 0.3 * 4 * two, rel=1e-5)


def test_evaluation_shows_all_images_in_order_with_a_short_last_batch() -> None:
    split = pieces(21)
    batches = take(evaluation_batches(split, 3, 8), 9)
    assert [len(images) for images, _ in batches] == [8, 8, 5]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.images)
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), np.eye(3)[split.labels])


def test_keras_fits_over_epochs_under_a_strategy(tmp_path: Path) -> None:
    split = pieces(21)
    disk = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=split.images.shape)
    disk[:] = split.images
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((48, 48, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(
        training_batches(Split(disk, split.labels, split.samples), 3, 8, TUTORIAL, 0),
        steps_per_epoch=steps_per_epoch(21, 8),
        validation_data=evaluation_batches(split, 3, 8),
        epochs=3,
        shuffle=False,  # it is shuffled; Keras warns of its default
        verbose=0,
    ).history
    assert len(history["val_accuracy"]) == 3
