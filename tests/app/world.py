"""Steps that several tests of the service share: load, serve, damage and wait for versions, read metrics."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from app import errors
from app.execution.loading import load_model
from app.execution.model import Model
from app.execution.session import Execution
from app.observability.metrics import Metrics
from app.rollout.rollback import RollbackPolicy
from app.rollout.serving import Serving
from training.contract.manifest import MODEL_FILE
from training.contract.repository import ModelRepository

POLICY = RollbackPolicy()


class Loader:
    """The real load, but it counts its calls and waits while `gate` is closed."""

    def __init__(self, repository: ModelRepository, execution: Execution | None = None) -> None:
        self.loads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._load = functools.partial(
            load_model, repository, execution=execution or Execution(), precision="auto", max_batch=4, limit=256
        )

    def __call__(self, version: int) -> Model:
        self.loads.append(version)
        assert self.gate.wait(30)
        return self._load(version)


def serving_of(
    repository: ModelRepository,
    load: Callable[[int], Model] | None = None,
    policy: RollbackPolicy = POLICY,
    **limits: Any,  # Any: each has its own type
) -> Serving:
    metrics = Metrics()
    return Serving(
        repository,
        load or Loader(repository),
        poll_interval=0.01,
        batch_delay=0,
        policy=policy,
        metrics=metrics,
        observe=metrics.count_batch,
        **limits,
    )


def live_version(serving: Serving) -> int | None:
    return serving.live.model.version if serving.live else None


def break_file(repository: ModelRepository, version: int) -> None:
    with (repository.path(version) / MODEL_FILE).open("ab") as file:
        file.write(b"\0")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        # the condition comes true on the disk and in threads, which set no Event
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def value(text: str, series: str) -> float:
    """Returns the value of a series, named as in the scrape, or 0 when the scrape does not have it."""
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{series} ")), 0)


def every_error() -> list[type[errors.ClientError]]:
    """Returns every class of error that a client can see."""
    tree = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, errors.ServiceError)]
    return [*tree, *errors.DOMAIN]
