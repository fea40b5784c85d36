"""GET /metrics: what Prometheus scrapes."""

import asyncio

from fastapi import APIRouter
from prometheus_client.metrics_core import Metric
from starlette.responses import PlainTextResponse, Response

from app.api.problems import documented
from app.errors import Unauthorized
from app.observability.metrics import MEDIA_TYPE, shared_folder
from app.observability.resources import gpu_metrics, process_metrics, room_metrics, serving_processes
from app.services import ServicesDep
from app.settings import Settings
from app.trainer.job_metrics import job_metrics

JOBS_LIMIT_S = 0.5  # a scrape has ten seconds, and has to succeed while the database is away

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse, responses=documented(Unauthorized)
)
async def metrics(services: ServicesDep) -> Response:
    """Returns the metrics in the text format of Prometheus."""
    jobs, used = await asyncio.gather(
        job_metrics(services.job_states, services.jobs, JOBS_LIMIT_S), asyncio.to_thread(_resources, services.settings)
    )
    return Response(services.metrics.render([*jobs, *used]), media_type=MEDIA_TYPE)


def _resources(settings: Settings) -> list[Metric]:
    folders = {
        "models": settings.models,
        "datasets": settings.datasets,
        "weights": settings.weights,
        "state": settings.state,
    }
    processes = serving_processes(shared_folder())
    return process_metrics(processes) + room_metrics(folders) + gpu_metrics()
