"""Batches of decoded images for `model.fit` and `model.evaluate`.

A batch is (float32 [N, H, W, 3] of 0..255, one-hot float32 [N, classes]). Labels are always one-hot, because Keras
smooths labels in CategoricalCrossentropy only, and because two of them can be mixed.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.datasets.loading import Split
from training.network.augmentation import augment
from training.network.mixing import mix
from training.network.runtime import tf
from training.recipes import Augmentation

MIXING = 2**16  # a number for the keys of the mixing, which no step of the augmentation has


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Returns the number of steps that show every image once; the last batch is filled up, never short."""
    return -(-images // min(batch_size, images))


def training_batches(
    split: Split,
    classes: int,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    first_epoch: int = 0,
    first_step: int = 0,
    class_weights: NDArray[np.float32] | None = None,
) -> tf.data.Dataset:
    """Returns endless shuffled, augmented, mixed batches; give `steps_per_epoch` to `model.fit`.

    With `class_weights`, [classes], a batch has a third part: the weight of each image in the loss, float32 [N].

    The order and the augmentation of an epoch depend on `seed` and the epoch's number alone: a run that resumes
    `first_step` steps into `first_epoch` gets the batches that an unbroken run would have had. The next epoch is
    prefetched while this one is validated.

    Every batch is full: the last one takes its missing images from the start of the epoch's order. A short batch would
    be noise for BatchNorm, a second shape to compile, and uneven over several GPUs. The price: up to batch_size - 1
    images count twice in an epoch.
    """
    count, batch_size = len(split), min(batch_size, len(split))
    steps = steps_per_epoch(count, batch_size)
    base = tf.constant([seed % 2**31, seed >> 31], tf.int64)
    read = _reader(split, classes)

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        epoch, step = number // steps, number % steps
        key = tf.random.fold_in(base, epoch)
        places = (step * batch_size + tf.range(batch_size, dtype=tf.int64)) % count
        images, targets = read(tf.random.experimental.index_shuffle(places, key, count - 1))
        key = tf.random.fold_in(key, step)
        images = augment(images, augmentation, key)
        if augmentation.mixup or augmentation.cutmix:
            images, targets = mix(images, targets, augmentation, tf.random.fold_in(key, MIXING))
        return (images, targets) if class_weights is None else (images, *weighted(targets, class_weights))

    numbers = tf.data.Dataset.counter(first_epoch * steps + first_step)
    return numbers.map(batch, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, classes: int, batch_size: int) -> tf.data.Dataset:
    """Returns batches of all images once, in the split's order; the last batch may be short."""
    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    return rows.map(_reader(split, classes), tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def weighted(targets: tf.Tensor, class_weights: NDArray[np.float32]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns targets [N, classes] and weights [N], by which each class counts as much as its weight [classes] says.

    Of a mixed image, each part counts by the weight of its own class: cross-entropy is linear in the targets. (Keras'
    own `class_weight` would give the whole image the weight of the larger part.)
    """
    parts = targets * class_weights
    weights = tf.reduce_sum(parts, axis=1)
    return parts / weights[:, None], weights


def _reader(split: Split, classes: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from row numbers [N] to images float32 [N, H, W, 3] and one-hot labels [N, classes].

    The pixels stay in their NumPy array, which may be a memory map. As a tensor they would be in memory a second time.
    """
    pixels, labels = np.asarray(split.images), tf.constant(split.labels)

    def read(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.numpy_function(pixels.__getitem__, [rows], tf.uint8, stateful=False)
        images = tf.ensure_shape(images, (rows.shape[0], *pixels.shape[1:]))
        return tf.cast(images, tf.float32), tf.one_hot(tf.gather(labels, rows), classes)

    return read
