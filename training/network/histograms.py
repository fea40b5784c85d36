"""Histograms of the weights for TensorBoard, written now and then."""

import math
import time
from pathlib import Path

import numpy as np

from training.network.pace import next_due
from training.network.runtime import keras, tf

VALUES = 50_000  # of a weight, at most, evenly spread: all 25 million take 5 s and look the same


class Histograms(keras.callbacks.Callback):
    """A callback that writes histograms beside Keras' scalars, first after one epoch, then when `next_due` allows."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.due = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.writer = tf.summary.create_file_writer(str(self.folder / "train"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        begun = time.monotonic()
        if begun < self.due:
            return
        with self.writer.as_default():
            for weight in self.model.weights:
                values = np.ravel(keras.ops.convert_to_numpy(weight))
                tf.summary.histogram(weight.path, values[:: math.ceil(len(values) / VALUES)], step=epoch)
        self.due = next_due(begun)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.writer.close()
