"""Batches of decoded images for `model.fit` and `model.evaluate`.

A batch is (float32 [N, H, W, 3] of 0..255, one-hot float32 [N, classes]). Labels are always one-hot, because Keras
smooths labels in CategoricalCrossentropy only.
"""

from collections.abc import Callable

import numpy as np

from training.config import AUGMENTATIONS, Augmentation
from training.datasets.loading import Split
from training.network.runtime import keras, tf


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
) -> tf.data.Dataset:
    """Returns endless shuffled, augmented batches; give `steps_per_epoch` to `model.fit`.

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
    augmented = augmentation != AUGMENTATIONS["none"]

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, step = number // steps, number % steps
        key = tf.random.fold_in(base, epoch)
        places = (step * batch_size + tf.range(batch_size, dtype=tf.int64)) % count
        images, targets = read(tf.random.experimental.index_shuffle(places, key, count - 1))
        return (augment(images, augmentation, tf.random.fold_in(key, step)) if augmented else images), targets

    numbers = tf.data.Dataset.counter(first_epoch * steps + first_step)
    return numbers.map(batch, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, classes: int, batch_size: int) -> tf.data.Dataset:
    """Returns batches of all images once, in the split's order; the last batch may be short."""
    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    return rows.map(_reader(split, classes), tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def augment(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Applies random geometry to a batch, float32 [N, H, W, 3]. The same `key`, integers [2], gives the same draw.

    The parts and their order are those of Keras' ImageDataGenerator with fill_mode nearest. The whole batch is
    resampled once.
    """
    count, height, width = images.shape[0], images.shape[1], images.shape[2]
    draws = tf.unstack(tf.random.stateless_uniform((7, count), key, minval=-1, maxval=1))
    transforms = affine(
        height,
        width,
        rotation=draws[0] * augmentation.rotation,
        shift_x=draws[1] * augmentation.width_shift * width,
        shift_y=draws[2] * augmentation.height_shift * height,
        shear=draws[3] * augmentation.shear,
        zoom_x=1 + draws[4] * augmentation.zoom,
        zoom_y=1 + draws[5] * augmentation.zoom,
        mirror=tf.logical_and(draws[6] < 0, augmentation.horizontal_flip),
    )
    return keras.ops.image.affine_transform(
        images, transforms, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
    )


def affine(
    height: int,
    width: int,
    *,
    rotation: tf.Tensor,
    shift_x: tf.Tensor,
    shift_y: tf.Tensor,
    shear: tf.Tensor,
    zoom_x: tf.Tensor,
    zoom_y: tf.Tensor,
    mirror: tf.Tensor,
) -> tf.Tensor:
    """Returns [N, 8] for `keras.ops.image.affine_transform`: output to input coordinates, about the center.

    All arguments are [N]: rotation and shear in degrees, shifts in pixels, `mirror` boolean. The map is
    ImageDataGenerator's rotation @ shift @ shear @ zoom, multiplied out, and then its flip. (ImageDataGenerator moves
    columns by its height_shift_range and rows by its width_shift_range. Here each range moves its own direction.)
    """
    degree = np.pi / 180
    cos, sin = tf.cos(rotation * degree), tf.sin(rotation * degree)
    sheared_cos, sheared_sin = tf.cos((rotation + shear) * degree), tf.sin((rotation + shear) * degree)
    a0, a1 = zoom_x * cos * tf.where(mirror, -1.0, 1.0), -zoom_y * sheared_sin
    b0, b1 = zoom_x * sin * tf.where(mirror, -1.0, 1.0), zoom_y * sheared_cos
    x, y = (width - 1) / 2, (height - 1) / 2
    a2 = x + cos * shift_x - sin * shift_y - a0 * x - a1 * y
    b2 = y + sin * shift_x + cos * shift_y - b0 * x - b1 * y
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


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
