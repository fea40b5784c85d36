"""Batches whose images and targets are mixed with each other's: mixup and cutmix."""

from training.network.augmentation import boxes
from training.network.runtime import tf
from training.recipes import Augmentation

MIXUP_ALPHA = 0.2  # of the Beta distribution of the shares: most images stay nearly as they were


def mix(
    images: tf.Tensor, targets: tf.Tensor, augmentation: Augmentation, key: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes a share of the images [N, H, W, 3] and of their targets [N, classes], each with the one before it.

    Mixup (arXiv 1710.09412) blends two images, cutmix (arXiv 1905.04899) puts a box of the other one into the image.
    The targets mix by what is there of each. The same `key`, integers [2], gives the same draw.
    """
    count = images.shape[0]
    draws = tf.random.stateless_uniform((count,), key)[:, None, None, None]
    own = tf.where(draws < augmentation.mixup, blended(count, tf.random.fold_in(key, 1)), 1.0)
    if augmentation.cutmix:
        pasted = (draws >= augmentation.mixup) & (draws < augmentation.mixup + augmentation.cutmix)
        own = tf.where(pasted, cut(images, tf.random.fold_in(key, 2)), own)
    share = tf.reduce_mean(own, axis=(1, 2, 3))[:, None]
    return (
        own * images + (1 - own) * tf.roll(images, 1, axis=0),
        share * targets + (1 - share) * tf.roll(targets, 1, axis=0),
    )


def blended(count: int, key: tf.Tensor) -> tf.Tensor:
    """Returns the share of each of `count` images in its blend, float32 [count, 1, 1, 1], Beta distributed."""
    # in float64: a draw of this Gamma distribution is often too small for float32, and 0 / 0 would follow
    one, two = tf.unstack(tf.random.stateless_gamma((2, count), key, MIXUP_ALPHA, dtype=tf.float64))
    return tf.cast(one / (one + two), tf.float32)[:, None, None, None]


def cut(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Returns what stays of each image beside the other's box, 0.0 or 1.0 [N, H, W, 1].

    The box's area is uniform from 0 to the whole image; it lies wholly within.
    """
    area, x, y = tf.unstack(tf.random.stateless_uniform((3, images.shape[0]), key))
    side = tf.sqrt(area)
    box = boxes(images.shape[1], images.shape[2], y * (1 - side), x * (1 - side), side, side)
    return 1 - tf.cast(box, tf.float32)
