"""Keras' optimizers, with each variable updated by one TensorFlow kernel: the same numbers, faster.

Keras 3 writes an update as ten to fifteen operations, and each goes through memory. This network has 161 variables,
and every operation is also traced before the first step. Class names are Keras' own. The update reads Keras' private
`_get_variable_index`, `_momentums` and `_velocities`, so pyproject.toml bounds Keras to one minor release.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any  # tensors and layers: Keras ships no types

from training.network.averaging import Averaging
from training.network.runtime import keras, tf


class LayerRates:
    """The part of an optimizer that lets some layers learn at a multiple of the learning rate."""

    rates: Mapping[str, float] = MappingProxyType({})  # by a layer's name; 1 where it is not named
    _trainable_variables: list[Any]

    def rate_of(self, index: int, learning_rate: Any) -> Any:
        """Returns the learning rate of the optimizer's variable number `index`."""
        variable = self._trainable_variables[index]
        return tf.cast(learning_rate, variable.dtype) * self.rates.get(variable.path.split("/")[-2:][0], 1.0)


class SGD(LayerRates, Averaging, keras.optimizers.SGD):
    """SGD with momentum, which is required."""

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable by its gradient; Keras calls it."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=self.rate_of(index, learning_rate),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


class Adam(LayerRates, Averaging, keras.optimizers.Adam):
    """Adam; AMSGrad is not supported."""

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable by its gradient; Keras calls it."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(self.beta_1, dtype) ** step,
            beta2_power=tf.cast(self.beta_2, dtype) ** step,
            lr=self.rate_of(index, learning_rate),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, https://arxiv.org/abs/1711.05101. Keras decouples any `weight_decay`."""
