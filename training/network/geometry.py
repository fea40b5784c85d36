"""Random geometry of a batch: one affine map for each image, and one resampling for the batch."""

import math

import numpy as np

from training.network.runtime import keras, tf
from training.recipes import Augmentation

LEAST_ASPECT = 3 / 4  # of a crop, width to height; the largest is 4/3


def geometry(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Rotates, shifts, shears, zooms, mirrors and crops each image.

    The parts and their order are those of Keras' ImageDataGenerator with fill_mode nearest. It works on the crop, as if
    the image went on beside it.
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
    if augmentation.crop:
        transforms = cropped(
            transforms, height, width, *crop_boxes(count, augmentation.crop, tf.random.fold_in(key, 0))
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


def crop_boxes(count: int, largest: float, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns width, height, left and top of `count` crops, each [N], as fractions of the image.

    The area is uniform from 1 - `largest` to 1. The aspect ratio is uniform on a logarithmic scale; a side that would
    be longer than the image's is as long as the image's.
    """
    area, aspect, left, top = tf.unstack(tf.random.stateless_uniform((4, count), key))
    area, ratio = 1 - largest * area, tf.exp((1 - 2 * aspect) * math.log(LEAST_ASPECT))
    width, height = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
    return width, height, left * (1 - width), top * (1 - height)


def cropped(
    transforms: tf.Tensor,
    image_height: int,
    image_width: int,
    width: tf.Tensor,
    height: tf.Tensor,
    left: tf.Tensor,
    top: tf.Tensor,
) -> tf.Tensor:
    """Returns `transforms` [N, 8] of crops that are enlarged to the whole image; the crops are `crop_boxes`.

    A pixel's coordinates are those of its center, so the image begins at -0.5.
    """
    a0, a1, a2, b0, b1, b2, *zeros = tf.unstack(transforms, axis=1)
    a2 = (a2 + 0.5) * width + left * image_width - 0.5
    b2 = (b2 + 0.5) * height + top * image_height - 0.5
    return tf.stack([a0 * width, a1 * width, a2, b0 * height, b1 * height, b2, *zeros], axis=1)
