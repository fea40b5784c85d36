"""Layers in the form that the device computes soonest: what they compute is what Keras' compute."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from training.network.layers import BatchNormalization, Conv2D, GroupedConv2D
from training.network.runtime import keras, tf

RANDOM = np.random.default_rng(0)


def answers(layer: keras.layers.Layer, x: NDArray[np.float32], training: bool) -> dict[str, NDArray[np.float32]]:
    """Returns a layer's output, and its gradients by input and by weights."""
    inputs = tf.constant(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.sin(tf.range(outputs.shape[-1], dtype=tf.float32)) ** 2)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3) / 10 + loss
    gradients = tape.gradient(loss, [inputs, *(weight.value for weight in layer.trainable_weights)])
    tensors = {"outputs": outputs, **{f"gradient {i}": gradient for i, gradient in enumerate(gradients)}}
    return {name: tf.cast(tensor, tf.float32).numpy() for name, tensor in tensors.items()}


def same(
    ours: keras.layers.Layer, theirs: keras.layers.Layer, x: NDArray[np.float32], training: bool, within: float
) -> None:
    """Asserts equality within `within` of each tensor's largest value; weights that the call itself moves, too."""
    for layer in (ours, theirs):
        layer.build(x.shape)
    theirs.set_weights([RANDOM.uniform(0.5, 1.5, weight.shape) for weight in theirs.weights])
    ours.set_weights(theirs.get_weights())
    expected = answers(theirs, x, training)
    for name, answer in answers(ours, x, training).items():
        np.testing.assert_allclose(answer, expected[name], atol=within * np.abs(expected[name]).max(), err_msg=name)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=within, atol=within)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_is_keras_own(stride: int) -> None:
    x = RANDOM.normal(size=(3, 7, 5, 12)).astype(np.float32)
    ours, theirs = (kind(16, 1, strides=stride, use_bias=False) for kind in (Conv2D, keras.layers.Conv2D))
    same(ours, theirs, x, training=True, within=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("policy", "within"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_batch_normalization_is_keras_own(policy: str, within: float, training: bool) -> None:
    x = (2 * RANDOM.normal(size=(3, 6, 5, 16)) + RANDOM.normal(size=16)).astype(np.float32)
    x = tf.cast(tf.cast(x, tf.bfloat16), tf.float32).numpy()  # what either policy can hold
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    ours, theirs = (kind(epsilon=1e-5, momentum=0.9, dtype=policy) for kind in kinds)
    same(ours, theirs, x, training=training, within=within)


def test_a_frozen_batch_normalization_keeps_its_statistics() -> None:
    layer = BatchNormalization()
    layer.build((None, 2, 2, 4))
    layer.trainable = False
    layer(tf.ones((3, 2, 2, 4)), training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))


def test_grouped_convolution_is_one_convolution_a_group() -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 12)).astype(np.float32)
    layer = GroupedConv2D(8, 3, groups=4, padding="same", use_bias=False)
    answer = layer(x)
    kernels = np.split(layer.kernel.numpy(), 4, axis=-1)
    expected = [tf.nn.conv2d(part, k, 1, "SAME") for part, k in zip(np.split(x, 4, axis=-1), kernels, strict=True)]
    np.testing.assert_allclose(answer, np.concatenate(expected, axis=-1), atol=1e-5)


@pytest.mark.parametrize(("channels", "filters", "groups"), [(128, 128, 32), (96, 48, 12), (12, 6, 3)])
def test_merged_groups_compute_the_same(channels: int, filters: int, groups: int) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 5, channels)), tf.float32)
    native = GroupedConv2D(filters, 3, groups=groups, padding="same", merge_groups=False)
    merged = GroupedConv2D(filters, 3, groups=groups, padding="same", merge_groups=True)
    native.build(x.shape)
    merged.build(x.shape)
    merged.set_weights(native.get_weights())
    answers, gradients = [], []
    for layer in (native, merged):
        with tf.GradientTape() as tape:
            answer = layer(x)
            loss = tf.reduce_sum(answer**2)
        answers.append(answer.numpy())
        gradients.append(tape.gradient(loss, layer.trainable_weights[0].value).numpy())
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-2)


def test_without_grouped_kernels_the_network_still_trains() -> None:
    """TensorFlow's plain CPU kernels have no gradient for groups: a process without oneDNN has to merge them."""
    program = """
from training.network import resnext
from training.network.layers import has_grouped_kernels
from training.network.runtime import tf
from tests.training.network.small import SIZE_32, SMALL
assert not has_grouped_kernels()
model = resnext.build(SMALL, SIZE_32, classes=3)
model.compile("sgd", "mse")
model.train_on_batch(tf.ones((2, 32, 32, 3)), tf.ones((2, 3)))
"""
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", "PATH": "", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_filters_that_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 10 filters and 4 groups"):
        GroupedConv2D(10, 3, groups=4)


def test_channels_that_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 6 channels and 4 groups"):
        GroupedConv2D(8, 3, groups=4).build((None, 5, 5, 6))
