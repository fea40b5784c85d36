"""Random changes of training batches, one step after the other.

A step is a function (images float32 [N, H, W, 3] of 0..255, strengths, key) -> images of the same shape. It draws for
each image on its own, by stateless operations: the same key, integers [2], gives the same draw, so that a resumed
training sees the same images. A new step is such a function, its row in STEPS, and its strengths in
`training.recipes.Augmentation`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from training.network.effects import effects
from training.network.geometry import geometry
from training.network.runtime import tf
from training.recipes import Augmentation

YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # from RGB: light, two axes of color
LEAST_ERASED, MOST_ERASED = 0.02, 1 / 3  # of the area
LEAST_ASPECT = 0.3  # of an erased box, height to width; the largest is its inverse


class Step(NamedTuple):
    """A step and the strengths that it depends on: where all are 0 it is left out."""

    change: Callable[[tf.Tensor, Augmentation, tf.Tensor], tf.Tensor]
    strengths: tuple[str, ...]


def augment(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Applies all steps to a batch, float32 [N, H, W, 3]. The same `key`, integers [2], gives the same draw."""
    for number, step in enumerate(STEPS.values()):
        if any(getattr(augmentation, name) for name in step.strengths):
            # the first step draws by the key itself, as it did when it was the only one: old seeds keep their images
            images = step.change(images, augmentation, tf.random.fold_in(key, number) if number else key)
    return images


def color(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, as one linear map of the three channels and one clip.

    Contrast is about the image's mean light. Hue turns the two axes of color in YIQ, which keeps the light.
    """
    draws = tf.unstack(tf.random.stateless_uniform((4, images.shape[0]), key, minval=-1, maxval=1))
    brightness, contrast = 1 + draws[0] * augmentation.brightness, 1 + draws[1] * augmentation.contrast
    saturation, turn = 1 + draws[2] * augmentation.saturation, draws[3] * augmentation.hue * 2 * math.pi
    zero, one = tf.zeros_like(turn), tf.ones_like(turn)
    cos, sin = saturation * tf.cos(turn), saturation * tf.sin(turn)
    turned = tf.reshape(tf.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], axis=1), (-1, 3, 3))
    to_yiq = tf.constant(YIQ)
    matrix = tf.linalg.inv(to_yiq) @ turned @ to_yiq * (brightness * contrast)[:, None, None]
    light = tf.linalg.matvec(tf.reduce_mean(images, axis=(1, 2)), to_yiq[0])
    offset = ((1 - contrast) * brightness * light)[:, None, None, None]
    mapped = tf.matmul(tf.reshape(images, (images.shape[0], -1, 3)), matrix, transpose_b=True)
    return tf.clip_by_value(tf.reshape(mapped, images.shape) + offset, 0, 255)


def erasing(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Paints a box of a share of the images with one random color (Random Erasing, arXiv 1708.04896)."""
    count, height, width = images.shape[0], images.shape[1], images.shape[2]
    chosen, area, aspect, x, y, *paint = tf.unstack(tf.random.stateless_uniform((8, count), key))
    area, ratio = LEAST_ERASED + (MOST_ERASED - LEAST_ERASED) * area, tf.exp((1 - 2 * aspect) * math.log(LEAST_ASPECT))
    tall, wide = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
    box = boxes(height, width, y * (1 - tall), x * (1 - wide), tall, wide)
    painted = 255 * tf.stack(paint, axis=1)[:, None, None, :]
    return tf.where(box & (chosen < augmentation.erasing)[:, None, None, None], painted, images)


def boxes(height: int, width: int, top: tf.Tensor, left: tf.Tensor, tall: tf.Tensor, wide: tf.Tensor) -> tf.Tensor:
    """Returns boolean [N, height, width, 1], true in a box for each image; the others [N] are fractions of the image.

    A pixel is in the box when its center is.
    """
    rows, columns = (
        (tf.range(height, dtype=tf.float32) + 0.5) / height,
        (tf.range(width, dtype=tf.float32) + 0.5) / width,
    )
    within_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    within_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return within_rows[:, :, None, None] & within_columns[:, None, :, None]


STEPS = {
    "geometry": Step(geometry, ("rotation", "width_shift", "height_shift", "shear", "zoom", "horizontal_flip", "crop")),
    "color": Step(color, ("brightness", "contrast", "saturation", "hue")),
    "effects": Step(effects, ("effects",)),
    "erasing": Step(erasing, ("erasing",)),
}
