"""What the routes work with; the one place besides `create_app` that touches `app.state`."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.inference.admission import Admission
from app.observability.metrics import Metrics
from app.processes.keeper import Keeper
from app.rollout.serving import Serving
from app.settings import Settings
from app.trainer.datasets import Intake
from app.trainer.jobs import JobStates
from training.datasets.store import DatasetStore
from training.jobs.jobs import Jobs


@dataclass(frozen=True)
class Services:
    """The parts with a lifetime, as `create_app` made them."""

    settings: Settings
    serving: Serving
    admission: Admission
    metrics: Metrics
    decoders: ThreadPoolExecutor
    datasets: DatasetStore
    intake: Intake
    jobs: Jobs
    job_states: JobStates
    trainer: Keeper
    started: float = field(default_factory=time.monotonic)


def services_of(app: FastAPI) -> Services:
    """The services of an app that `create_app` made."""
    services: Services = app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request.app)


ServicesDep = Annotated[Services, Depends(_services)]
