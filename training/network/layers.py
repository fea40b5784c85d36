"""Keras' layers in the form that this device computes fastest: same numbers, same weights, same weight files.

A weight file addresses a layer by the name of its class, so these classes keep Keras' names.
"""

import functools
from typing import Any  # tensors and layers: Keras ships no types

from training.network.runtime import GPUS, keras, tf

MERGED_WIDTH = 32  # fewest channels of a convolution when groups are merged


@keras.saving.register_keras_serializable("resnext_service")
class Conv2D(keras.layers.Conv2D):
    """A dense convolution that computes a 1x1 kernel as a matrix product on a CPU.

    A CPU's convolution first changes the layout of its kernel, once forward and twice backward. For a large kernel and
    a small image this is more work than the product. With a stride the convolution is faster: slicing takes longer.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves `inputs` [N, H, W, C] with `kernel` [h, w, C, filters]; Keras calls it."""
        if GPUS or self.kernel_size != (1, 1) or self.strides != (1, 1):
            return super().convolution_op(inputs, kernel)
        _, height, width, channels = inputs.shape
        product = tf.matmul(tf.reshape(inputs, (-1, channels)), tf.reshape(kernel, (channels, self.filters)))
        return tf.reshape(product, (-1, height, width, self.filters))


@keras.saving.register_keras_serializable("resnext_service")
class GroupedConv2D(keras.layers.Conv2D):
    """A grouped 2-D convolution that trains fast and converts to one ONNX `Conv`.

    Keras' own `Conv2D(groups=...)` runs in a jit-compiled function on TensorFlow: tf2onnx cannot convert that
    (tensorflow-onnx#2099), and a CPU trains it at a thirtieth of this speed.

    `merge_groups=True` computes groups as block-diagonal dense convolutions of at least 32 channels: the same numbers,
    for devices without a grouped kernel. False never does; None asks `has_grouped_kernels`.
    """

    def __init__(self, filters: int, kernel_size: int, *, merge_groups: bool | None = None, **arguments: Any) -> None:
        groups = arguments.get("groups", 1)
        if filters % groups:
            raise ValueError(
                f"{arguments.get('name', 'grouped convolution')}: filters should be divisible by groups, "
                f"there are {filters} filters and {groups} groups"
            )
        super().__init__(filters, kernel_size, **arguments)
        self.merge_groups = merge_groups

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Raises ValueError when the input's channels are not divisible by the groups."""
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"{self.name}: input channels should be divisible by groups, "
                f"there are {input_shape[-1]} channels and {self.groups} groups"
            )
        super().build(input_shape)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves `inputs` [N, H, W, C] with `kernel` [h, w, C / groups, filters]; Keras calls it."""
        merge = not has_grouped_kernels() if self.merge_groups is None else self.merge_groups
        if not merge:
            return tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())
        kernels = self._merged(kernel)
        parts = zip(tf.split(inputs, len(kernels), axis=-1), kernels, strict=True)
        return tf.concat([tf.nn.conv2d(x, k, self.strides, self.padding.upper()) for x, k in parts], axis=-1)

    def _merged(self, kernel: Any) -> list[Any]:
        """Returns dense kernels, each made of `merged` neighboring groups with zeros between them."""
        height, width, channels, filters = kernel.shape
        merged = min(self.groups, max(1, MERGED_WIDTH // channels))
        while self.groups % merged:
            merged -= 1
        blocks = tf.reshape(kernel, (height, width, channels, self.groups // merged, merged, filters // self.groups))
        diagonal = tf.einsum("hwcnmf,pm->nhwpcmf", blocks, tf.eye(merged, dtype=kernel.dtype))
        shape = (self.groups // merged, height, width, merged * channels, merged * (filters // self.groups))
        return tf.unstack(tf.reshape(diagonal, shape))

    def get_config(self) -> dict[str, Any]:
        """Returns Keras' config of the layer with `merge_groups`."""
        return {**super().get_config(), "merge_groups": self.merge_groups}


@keras.saving.register_keras_serializable("resnext_service")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalization as one TensorFlow operation, forward and backward, in the precision of its input.

    Keras 3 writes it as a dozen operations, and each reads and writes the whole tensor in float32. Statistics that
    replicas share (`synchronized`) are left to Keras.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes `inputs` [N, H, W, C]; the result has their shape and the layer's compute dtype."""
        if self.synchronized or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        learns = bool(training) and self.trainable
        none = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=none if learns else self.moving_mean.value,
            variance=none if learns else self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=learns,
        )
        if learns:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            variance *= (count - 1) / count  # TensorFlow divides by n - 1, Keras by n
            for moving, new in ((self.moving_mean.value, mean), (self.moving_variance.value, variance)):
                moving.assign_sub((moving - new) * (1 - self.momentum))
        return outputs


@functools.cache
def has_grouped_kernels() -> bool:
    """Whether this device computes a grouped convolution and its gradient; a GPU and a CPU with oneDNN do."""
    with tf.init_scope():  # runs eagerly, even while a graph is traced; it pauses gradient tapes, so none is used here
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=(1, 4, 4, 4),
                filter=tf.ones((3, 3, 2, 4)),
                out_backprop=tf.ones((1, 4, 4, 4)),
                strides=(1, 1, 1, 1),
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True
