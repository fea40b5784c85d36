"""TensorBoard's logs: scalars of each epoch, histograms of the weights now and then."""

import time
from pathlib import Path

from training.runtime import keras

SHARE = 0.02  # of the time, at most, that goes into histograms: those of 25 million weights take seconds


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback. Its histograms follow the clock: of the first epoch, and then when their share allows it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, histogram_freq=1, write_graph=False)
        self.due = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        begun = time.monotonic()
        self.histogram_freq = 1 if begun >= self.due else 0
        super().on_epoch_end(epoch, logs)
        if self.histogram_freq:
            ended = time.monotonic()
            self.due = ended + (ended - begun) * (1 / SHARE - 1)
