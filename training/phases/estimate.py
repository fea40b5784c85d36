"""How long a training will take here, measured on a few steps."""

import time
from typing import Literal

import numpy as np

from training.config import TrainConfig
from training.network import runtime
from training.network.pipeline import steps_per_epoch
from training.phases.train import compiled, epochs_of, planned
from training.runs.plan import Plan

STEPS = 2  # that are timed, after the one that traces the graph
VALIDATION = 1 / 3  # of a training step's time for as many images: it has no backward pass


def planned_epochs(config: TrainConfig, method: Literal["finetune", "scratch"], images: int) -> int:
    """Returns the number of epochs without a limit on time; `images` are those of training."""
    return epochs_of(planned(config, Plan(method=method)), steps_per_epoch(images, config.batch_size))


def seconds_of_epoch(
    config: TrainConfig, method: Literal["finetune", "scratch"], classes: int, images: dict[str, int]
) -> float:
    """Times a few steps of a training of all layers and returns the seconds of an epoch with its validation.

    `images` has the numbers of images by split. It takes up to a minute, most of it for the graph.
    """
    config = planned(config, Plan(method=method))
    steps = steps_per_epoch(images["train"], config.batch_size)
    with runtime.set_up(config.precision, config.seed).scope():
        model = compiled(config, classes, steps, synchronized=False)
    batch = min(config.batch_size, images["train"])
    pixels = np.zeros((batch, *config.preprocessing.shape), np.float32)
    targets = np.eye(classes, dtype=np.float32)[np.arange(batch) % classes]
    model.train_on_batch(pixels, targets)
    begun = time.monotonic()
    for _ in range(STEPS):
        model.train_on_batch(pixels, targets)
    step = (time.monotonic() - begun) / STEPS
    return step * (steps + VALIDATION * images["val"] / batch)
