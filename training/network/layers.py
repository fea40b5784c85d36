"""Keras' layers in the form that the device computes soonest: the same numbers, weights and weight files.

A weight file addresses a layer by its class' name: these keep Keras' names.
"""

import functools
from typing import Any

from training.network.runtime import GPUS, keras, tf

MERGED_WIDTH = 32  # channels of a convolution where groups have to be merged


@keras.saving.register_keras_serializable("resnext_service")
class Conv2D(keras.layers.Conv2D):
    """A dense convolution; one of size 1x1 is a matrix product, and computed as such on a CPU.

    There a convolution brings its kernel into a layout of its own, forward and twice backward, which is more work than
    the product itself where the kernel is large and the image small. With a stride it pays: to slice takes longer.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Called by Keras: `inputs` [N, H, W, C], `kernel` [h, w, C, filters]."""
        if GPUS or self.kernel_size != (1, 1) or self.strides != (1, 1):
            return super().convolution_op(inputs, kernel)
        _, height, width, channels = inputs.shape
        product = tf.matmul(tf.reshape(inputs, (-1, channels)), tf.reshape(kernel, (channels, self.filters)))
        return tf.reshape(product, (-1, height, width, self.filters))


@keras.saving.register_keras_serializable("resnext_service")
class GroupedConv2D(keras.layers.Conv2D):
    """A grouped 2-D convolution that trains fast and converts to one ONNX `Conv`.

    Keras' own `Conv2D(groups=...)` runs in a jit-compiled function on TensorFlow: tf2onnx can not convert it
    (tensorflow-onnx#2099) and a CPU trains it at a thirtieth of this speed.

    `merge_groups`: True computes groups as block-diagonal dense convolutions of at least 32 channels, the same
    numbers, for devices without a grouped kernel; False never; None finds out.
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
        """Called by Conv2D: `inputs` [N, H, W, C], `kernel` [h, w, C / groups, filters]."""
        merge = not has_grouped_kernels() if self.merge_groups is None else self.merge_groups
        if not merge:
            return tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())
        kernels = self._merged(kernel)
        parts = zip(tf.split(inputs, len(kernels), axis=-1), kernels, strict=True)
        return tf.concat([tf.nn.conv2d(x, k, self.strides, self.padding.upper()) for x, k in parts], axis=-1)

    def _merged(self, kernel: Any) -> list[Any]:
        """Dense kernels, each of `merged` neighbouring groups with zeros between them."""
        height, width, channels, filters = kernel.shape
        merged = min(self.groups, max(1, MERGED_WIDTH // channels))
        while self.groups % merged:
            merged -= 1
        blocks = tf.reshape(kernel, (height, width, channels, self.groups // merged, merged, filters // self.groups))
        diagonal = tf.einsum("hwcnmf,pm->nhwpcmf", blocks, tf.eye(merged, dtype=kernel.dtype))
        shape = (self.groups // merged, height, width, merged * channels, merged * (filters // self.groups))
        return tf.unstack(tf.reshape(diagonal, shape))

    def get_config(self) -> dict[str, Any]:
        """Keras' own, with `merge_groups`."""
        return {**super().get_config(), "merge_groups": self.merge_groups}


@keras.saving.register_keras_serializable("resnext_service")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own as one TensorFlow operation, forward and backward, in the precision of its input.

    Keras 3 writes it as a dozen, each of which reads and writes the whole tensor, in float32. Statistics that are
    shared between replicas are Keras' own business.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """`inputs` [N, H, W, C]; the result has their shape and the layer's compute dtype."""
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
            variance *= (count - 1) / count  # it is the sample's, for n - 1 degrees of freedom; Keras keeps the other
            for moving, new in ((self.moving_mean.value, mean), (self.moving_variance.value, variance)):
                moving.assign_sub((moving - new) * (1 - self.momentum))
        return outputs


@functools.cache
def has_grouped_kernels() -> bool:
    """Whether this device computes a grouped convolution and its gradient: a GPU does, a CPU with oneDNN does."""
    with tf.init_scope():  # eager, also when asked while a graph is traced; it pauses gradient tapes, so no tape here
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
