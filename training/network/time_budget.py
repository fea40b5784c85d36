"""A limit on the time of a training."""

import time
from collections.abc import Callable

from training.network.runtime import keras


class TimeBudget(keras.callbacks.Callback):
    """A callback that ends the training when its time is up, after the validation of the epoch that it is in.

    An epoch that was cut short counts as one: the best epoch is kept, whichever it is.
    """

    def __init__(self, seconds: float, tell: Callable[[str], object]) -> None:
        """Takes the seconds for all attempts together; `spent` are those of earlier ones."""
        super().__init__()
        self.seconds, self.tell, self.spent = seconds, tell, 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.end = time.monotonic() + self.seconds - self.spent

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if time.monotonic() >= self.end and not self.model.stop_training:
            self.tell("the time budget is spent: the training ends here")
            self.model.stop_training = True
