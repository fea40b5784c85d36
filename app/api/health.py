"""GET /health, and the probes for an orchestrator."""

import asyncio
import dataclasses
import os
import time

from fastapi import APIRouter

from app import __version__
from app.api.access.granted import may
from app.api.problems import documented
from app.api.schemas import (
    Alive,
    Health,
    HealthBrief,
    LatencyPoint,
    LoadErrorHealth,
    ModelBrief,
    ModelHealth,
    OverdueHealth,
    QueueHealth,
    RollbackHealth,
    Status,
    StreamsHealth,
    TrainerHealth,
)
from app.errors import NoModel, Stuck
from app.execution.measured import Curve
from app.execution.model import Model
from app.execution.provider import PROVIDERS
from app.services import Services, ServicesDep
from training.errors import words_of
from training.jobs.job import JobsUnavailable
from training.jobs.presence import WorkerInfo

JOBS_LIMIT_S = 0.5

router = APIRouter(prefix="/health", tags=["health"])


@router.get("", summary="The state of the service")
async def health(services: ServicesDep) -> Health | HealthBrief:
    """Answers 200 as long as the process answers at all; `status` says whether the service is ready. Reasons, workers,
    jobs and processes are only for callers who may train."""
    if may("train"):
        return await _details(services)
    live = services.serving.live
    model = live and ModelBrief(name=live.model.name, version=live.model.version)
    return HealthBrief(status=_status(services), ready=services.ready, model=model)


async def _details(services: Services) -> Health:
    serving, failure = services.serving, services.serving.failure
    return Health(
        status=_status(services),
        ready=services.ready,
        model=_model(serving.live.model) if serving.live else None,
        why_no_model=None if serving.live else serving.why_none(),
        queue=QueueHealth(depth=services.inference.admission.depth, capacity=services.inference.admission.capacity),
        process=os.getpid(),
        uptime_seconds=round(time.monotonic() - services.started, 3),
        load_error=failure and LoadErrorHealth(version=failure.version, reason=failure.reason, at=failure.at),
        overdue=[OverdueHealth(**dataclasses.asdict(late), reason=str(late)) for late in services.watch.overdue()],
        rollback=serving.rollback and RollbackHealth(**dataclasses.asdict(serving.rollback)),
        trainer=await _trainer(services),
        keys_error=services.keys_error(),
        service_version=__version__,
    )


@router.get("/live", summary="Liveness", responses=documented(Stuck))
async def live(services: ServicesDep) -> Alive:
    """Answers 200; 503 when a run or a decoding hangs that nothing can end, so that only a restart helps."""
    services.require_alive()
    return Alive(status="live")


@router.get("/ready", summary="Readiness", responses=documented(NoModel, Stuck))
async def ready(services: ServicesDep) -> Alive:
    """Answers 200 when a version is verified and warm; 503 before that, when something hangs, and in a drain."""
    services.require_ready()
    return Alive(status="ready")


async def _trainer(services: Services) -> TrainerHealth:
    error = services.trainer.error
    try:
        states = await services.job_states.all(JOBS_LIMIT_S)
    except JobsUnavailable as unavailable:
        states, error = None, str(unavailable)
    workers: list[WorkerInfo] = []
    try:
        workers = await asyncio.to_thread(services.jobs.workers)
    except OSError as unreadable:
        error = f"the workers' signs of life cannot be read: {words_of(unreadable)}"
    for worker in workers:
        if worker.silent_seconds:
            silent = f"has shown no sign of life for {worker.silent_seconds:.0f} s: is it stopped?"
            error = error or f"worker {worker.name}, process {worker.pid} on {worker.host}, {silent}"
    return TrainerHealth(
        workers=workers,
        queued=None if states is None else sum(status.state == "queued" for status in states.values()),
        running=[id for id, status in (states or {}).items() if status.state in ("running", "cancelling")],
        error=error,
    )


def _status(services: Services) -> Status:
    if services.drain.begun:
        return "draining"
    if not services.alive:
        return "stuck"
    if services.ready:
        return "ready"
    return "loading" if services.serving.loading else "no_model"


def _model(model: Model) -> ModelHealth:
    measured, streams = model.measured, model.streams
    return ModelHealth(
        name=model.name,
        version=model.version,
        classes=len(model.labels),
        precision=model.precision,
        provider=PROVIDERS[model.provider].name,
        max_batch=measured.alone.batch,
        speeds={name: round(speed, 1) for name, speed in measured.speeds.items()},
        latency=_points(measured.alone),
        streams=streams
        and StreamsHealth(
            count=streams.count, max_batch=measured.crowd.batch, latency=_points(measured.crowd, streams.count)
        ),
    )


def _points(curve: Curve, runs: int = 1) -> list[LatencyPoint]:
    """Returns the curve as points. Each of its times is that of `runs` runs of one size at once."""
    return [
        LatencyPoint(batch=n, milliseconds=round(1e3 * s, 3), images_per_second=round(runs * n / s, 1))
        for n, s in curve.seconds.items()
    ]
