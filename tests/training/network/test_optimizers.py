"""Optimizers with an update in one operation: what they do is what Keras' do."""

import numpy as np
import pytest

from training.network import optimizers
from training.network.runtime import keras, tf


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.1}),
    ],
)
def test_an_update_is_keras_own(name: str, arguments: dict[str, float]) -> None:
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=(4, 5)), random.normal(size=(5, 4, 5))
    rate = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=10)
    found = []
    for module in (optimizers, keras.optimizers):
        optimizer = getattr(module, name)(rate, **arguments)
        variable = keras.Variable(start.astype(np.float32))
        optimizer.build([variable])
        step = tf.function(optimizer.apply)
        for gradient in gradients.astype(np.float32):
            step([gradient])
        found.append([variable.numpy(), *(v.numpy() for v in optimizer.variables)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0][0], start, atol=0.1)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_layer_learns_at_its_own_multiple_of_the_rate(name: str) -> None:
    """The first step of each optimizer is in proportion to the rate, whatever the gradient is."""
    layers = [keras.layers.Dense(2, name=name) for name in ("body", "head")]
    variables = keras.Sequential([keras.Input((2,)), *layers]).trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer = getattr(optimizers, name)(0.01, **({"momentum": 0.9} if name == "SGD" else {}))
    optimizer.rates = {"head": 10.0}
    optimizer.build(variables)
    optimizer.apply([tf.ones(variable.shape) for variable in variables])
    moved = [np.abs(new.numpy() - old).mean() for new, old in zip(variables, before, strict=True)]
    np.testing.assert_allclose(moved[2:], np.array(moved[:2]) * 10, rtol=1e-3)
