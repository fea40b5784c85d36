"""An exponential moving average of the weights: it is validated and published in their place.

Keras' optimizers keep it as variables of their own (`use_ema`), so that a checkpoint has it. Three things are ours: the
momentum grows, weights and average change places exactly (Keras' SwapEMAWeights adds and subtracts, which rounds them),
and a fit that ends leaves both as they are, since a resumed training goes on from the weights.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any  # variables and optimizers: Keras ships no types

import numpy as np

from training.network.runtime import keras, tf

WARMUP = 10  # after t steps the momentum is t / (t + 10) at most: the average is over the last tenth of the steps


class Averaging:
    """The part of an optimizer that averages: it comes before Keras' own class among an optimizer's bases.

    `statistics` are further variables to be averaged, BatchNorm's: set them before `build`. Averaged weights with the
    statistics of the last steps give a higher loss. Keras calls the methods; what they override is private there.
    """

    use_ema: bool
    ema_momentum: float
    built: bool
    iterations: Any
    statistics: Sequence[Any] = ()
    _trainable_variables: list[Any]
    _model_variables_moving_average: list[Any]

    def build(self, variables: list[Any]) -> None:
        """Makes the optimizer's variables."""
        if self.built:
            return
        super().build(variables)  # type: ignore[misc]  # of the class that comes after this one
        if self.use_ema:
            self._model_variables_moving_average += self.add_optimizer_variables(self.statistics, "average")  # type: ignore[attr-defined]

    def averages(self) -> Iterator[tuple[Any, Any]]:
        """Yields each variable with its average, which is also a variable; nothing where none is kept."""
        if self.use_ema:
            variables = (*self._trainable_variables, *self.statistics)
            yield from zip(variables, self._model_variables_moving_average, strict=True)

    def _update_model_variables_moving_average(self, trainable_variables: list[Any]) -> None:
        del trainable_variables
        steps = tf.cast(self.iterations, tf.float32)
        momentum = tf.minimum(self.ema_momentum, steps / (steps + WARMUP))  # 0 in the first step
        for variable, average in self.averages():
            average.assign(average + (1 - momentum) * (variable - average))

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Leaves the weights as they are; Keras' own would put the average in their place."""


class AveragedValidation(keras.callbacks.Callback):
    """A callback that gives the model its averaged weights while it is validated."""

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        swap(self.model)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        swap(self.model)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Gives the compiled `model` its averaged weights, and the optimizer the others, until the block ends."""
    swap(model)
    try:
        yield
    finally:
        swap(model)


def swap(model: keras.Model) -> None:
    """Exchanges the weights and statistics of the compiled `model` and their averages, if its optimizer keeps any."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 scales the loss around ours
    if not isinstance(optimizer, Averaging):
        return
    for variable, average in optimizer.averages():
        value = np.array(keras.ops.convert_to_numpy(variable))
        variable.assign(average)
        average.assign(value)
