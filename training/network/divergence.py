"""The check for a loss that is not finite: no result after it can be right."""

import math
from collections.abc import Mapping

from training.errors import TrainingError


class Diverged(TrainingError):
    """A training whose loss is NaN or infinite."""


def require_finite(logs: Mapping[str, float], epoch: int) -> None:
    """Raises Diverged when a figure in `logs` is NaN or infinite; `epoch` counts from 1."""
    for name, value in logs.items():
        if not math.isfinite(value):
            raise Diverged(f"the training diverged in epoch {epoch}: its {name.replace('_', ' ')} is {value}")


def at_least(value: float) -> float:
    """Returns the value as a key to rank by: NaN ranks below every number."""
    return -math.inf if math.isnan(value) else value
