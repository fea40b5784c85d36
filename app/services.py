"""The parts that the routes work with. Only this file and `create_app` touch `app.state`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.errors import NoModel, Stuck
from app.inference.infer import Inference
from app.inference.upload_memory import UploadMemory
from app.observability.metrics import Metrics
from app.processes.drain import Drain
from app.processes.keeper import Keeper
from app.rollout.serving import Serving
from app.settings import Settings
from app.trainer.datasets import Intake
from app.trainer.jobs import JobStates
from app.watch import Watch
from training.datasets.store import DatasetStore
from training.jobs.jobs import Jobs


@dataclass(frozen=True)
class Services:
    """The parts of the service that have a lifetime, made by `create_app`."""

    settings: Settings
    serving: Serving
    inference: Inference
    uploads: UploadMemory
    metrics: Metrics
    datasets: DatasetStore
    intake: Intake
    jobs: Jobs
    job_states: JobStates
    trainer: Keeper
    drain: Drain
    keys_error: Callable[[], str | None]
    watch: Watch
    started: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        """Whether a verified, warm version is live, nothing hangs for good, and the process does not drain."""
        return self.serving.live is not None and self.alive and not self.drain.begun

    @property
    def alive(self) -> bool:
        """Whether nothing hangs that only a restart ends."""
        return self.watch.stuck() is None

    def require_ready(self) -> None:
        """Raises NoModel or Stuck with the reason unless the service is `ready`."""
        if self.drain.begun:
            raise NoModel("the service is shutting down")
        self.require_alive()
        self.serving.deployment()

    def require_alive(self) -> None:
        """Raises Stuck when only a restart helps."""
        if stuck := self.watch.stuck():
            raise Stuck(f"only a restart helps: {stuck}")


def services_of(app: FastAPI) -> Services:
    """Returns the services of an app that `create_app` made."""
    services: Services = app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request.app)


ServicesDep = Annotated[Services, Depends(_services)]
