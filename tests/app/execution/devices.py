"""Loads for tests, and stand-ins for what a machine may be: a device, a busy CPU, a clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.execution.loading import load_model
from app.execution.model import Model
from app.execution.opened import Opened, Timer
from app.execution.provider import Provider
from app.execution.runner import BoundRunner, DirectRunner, Runner
from app.execution.session import Execution, open_session
from tests.app.network import SIZE, network, random_images, reference
from training.contract.manifest import Precision
from training.contract.repository import ModelRepository


def load(repository: ModelRepository, version: int, **options: Any) -> Model:  # Any: each option has its own type
    defaults: dict[str, Any] = {"execution": Execution(), "precision": "auto", "max_batch": "auto", "limit": 256}
    return load_model(repository, version, **(defaults | options))


@dataclass(frozen=True)
class Device(Execution):
    """A device as the service treats a GPU, on the CPU. `broken` fails at a batch size, `wrong` is off there."""

    provider: Provider = "cuda"
    opened: list[tuple[str, bool]] = field(default_factory=list)  # precision, whether graphs were asked for
    broken: int | None = None
    wrong: int | None = None

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        assert shape == (SIZE, SIZE, 3)
        self.opened.append((precision, self.captures))
        return Flawed(open_session(file, "cpu", 1), sizes, self)


@dataclass(frozen=True)
class Crowded(Execution):
    """A CPU whose cores something else has whenever it is INT8's turn."""

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        runner = super().open(file, precision, shape, sizes)
        return Waiting(runner.session) if precision == "int8" else runner


class Waiting(DirectRunner):
    def run(self, images: NDArray[np.uint8], limit: float | None = None) -> NDArray[np.float32]:
        time.sleep(0.05)  # without a core
        return super().run(images, limit)


class Forecast(Timer):
    """Says how long a run takes without running it."""

    def __init__(self, forecast: Callable[[Opened, int], float]) -> None:
        self.forecast = forecast

    def seconds(self, opened: Opened, n: int) -> float:
        return self.forecast(opened, n)

    cpu_seconds = seconds


class Flawed(BoundRunner):
    def __init__(self, session: Any, sizes: Sequence[int], device: Device) -> None:  # Any: onnxruntime ships no types
        super().__init__(session, sizes, "cpu", graphs=device.captures)
        self.device = device

    def run(self, images: NDArray[np.uint8], limit: float | None = None) -> NDArray[np.float32]:
        size = self.rows(len(images))
        if size == self.device.broken and self.device.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().run(images, limit) + np.float32(size == self.device.wrong)


def golden(**changes: Any) -> dict[str, Any]:  # Any: arrays of any kind, also bad ones
    images = random_images(4)
    return {"images": images, "probabilities": reference(network(0), images)} | changes
