"""Effects that a photo editor has, one for each image. A new one is a function here and its row in EFFECTS."""

from collections.abc import Callable

from training.network.runtime import tf
from training.recipes import Augmentation

LEVELS = 256

Effect = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""A function (images float32 [n, H, W, 3] of 0..255, strengths [n, 1, 1, 1] of 0..1) -> images."""


def effects(images: tf.Tensor, augmentation: Augmentation, key: tf.Tensor) -> tf.Tensor:
    """Gives a share of the images one effect each, drawn with its strength as in TrivialAugment (arXiv 2103.10158).

    Each effect computes its own images only, so that ten effects cost no more than one.
    """
    count = images.shape[0]
    chosen, which, how = tf.unstack(tf.random.stateless_uniform((3, count), key))
    number = 1 + tf.cast(which * len(EFFECTS), tf.int32)
    number = tf.where(chosen < augmentation.effects, tf.minimum(number, len(EFFECTS)), 0)
    kinds = 1 + len(EFFECTS)
    places = tf.dynamic_partition(tf.range(count), number, kinds)
    unchanged, *parts = tf.dynamic_partition(images, number, kinds)
    strengths = tf.dynamic_partition(how[:, None, None, None], number, kinds)[1:]
    changed = [_unless_empty(*part) for part in zip(EFFECTS.values(), parts, strengths, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(places, [unchanged, *changed]), images.shape)


def _unless_empty(effect: Effect, images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Applies the effect if there are images. Not every operation of TensorFlow can do without."""
    return tf.cond(tf.shape(images)[0] > 0, lambda: effect(images, strength), lambda: images)


def autocontrast(images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255. It has no strength; a channel of one value stays."""
    del strength
    low, high = tf.reduce_min(images, (1, 2), keepdims=True), tf.reduce_max(images, (1, 2), keepdims=True)
    return tf.where(high > low, (images - low) * tf.math.divide_no_nan(255.0, high - low), images)


def equalize(images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Gives each channel a flat histogram. It has no strength; a channel of one value stays."""
    del strength
    _, height, width, channels = images.shape
    flat = tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (-1, height * width))
    levels = tf.cast(flat, tf.int32)
    rows = tf.range(tf.shape(flat)[0]) * LEVELS
    counts = tf.math.bincount(tf.reshape(levels + rows[:, None], (-1,)), minlength=LEVELS * tf.shape(flat)[0])
    below = tf.cast(tf.cumsum(tf.reshape(counts, (-1, LEVELS)), axis=1, exclusive=True), tf.float32)
    most = tf.gather(below, tf.reduce_max(levels, axis=1), batch_dims=1)[:, None]
    table = tf.math.divide_no_nan(255 * below, most)
    flat = tf.where(most > 0, tf.gather(table, levels, batch_dims=1), flat)
    return tf.transpose(tf.reshape(flat, (-1, channels, height, width)), (0, 2, 3, 1))


def posterize(images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Leaves 128 levels down to 4."""
    step = 2.0 ** (1 + tf.floor(strength * 5.999))
    return tf.floor(images / step) * step


def solarize(images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Inverts the pixels above a level, from 255 at strength 0 to 0 at strength 1."""
    return tf.where(images > 255 * (1 - strength), 255 - images, images)


def sharpness(images: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Blurs or sharpens each pixel against its 3x3 neighbors: strength 0 blurs, 0.5 changes nothing, 1 sharpens."""
    smooth = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(smooth[:, :, None, None], (1, 1, images.shape[-1], 1))
    # beyond the edge the picture goes on, so that the edge does not darken
    framed = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "SYMMETRIC")
    blurred = tf.nn.depthwise_conv2d(framed, kernel, (1, 1, 1, 1), "VALID")
    return tf.clip_by_value(blurred + 2 * strength * (images - blurred), 0, 255)


EFFECTS: dict[str, Effect] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
    "sharpness": sharpness,
}
