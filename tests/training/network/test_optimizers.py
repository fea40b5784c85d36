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
