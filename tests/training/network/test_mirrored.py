"""Several devices: two logical processors stand for two GPUs. They have to be made before TensorFlow is used."""

import json
import subprocess
import sys

import pytest

from tests.process import ROOT

TRAINING = """
import json
import numpy as np
from training.network.runtime import keras, tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training.network import optimizers, resnext
from training.network.averaging import swap
from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.float32)
labels = np.eye(4, dtype=np.float32)[np.arange(16) % 4]
losses = []
average = {"use_ema": True, "ema_momentum": 0.5}
for make in (lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, **average), lambda: optimizers.Adam(1e-3)):
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = resnext.build(
                Architecture(depths=(1,), cardinality=4, base_width=4, stem_width=16),
                Preprocessing(height=32, width=32), 4, synchronized=strategy.num_replicas_in_sync > 1,
            )
            optimizer = make()
            optimizer.statistics = model.non_trainable_variables
            model.compile(optimizer=optimizer, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
            losses.append(model.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"])
            swap(model)
            losses[-1] += [float(np.abs(weight).sum()) for weight in model.weights]
print(json.dumps(losses))
"""


def test_two_devices_train_as_one() -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING], cwd=ROOT, capture_output=True, text=True, check=True)
    for one, two in zip(*[iter(json.loads(done.stdout.splitlines()[-1]))] * 2, strict=True):
        assert one == pytest.approx(two, rel=1e-5)
        assert one[2] < one[0]
