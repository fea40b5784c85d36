"""The metrics of the training jobs, read at each scrape."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from app.trainer.jobs import JobStates, answered
from training.jobs.job import Job, JobDamaged, JobNotFound, JobState, JobsUnavailable
from training.jobs.jobs import Jobs


async def job_metrics(states: JobStates, jobs: Jobs, limit: float) -> list[Metric]:
    """Returns how many jobs are in each state, and how far each running job is.

    Returns no metric when the database does not answer within `limit` seconds: Prometheus can tell a missing value from
    a zero.
    """
    try:
        known = await states.all(limit)
        ids = [id for id, status in known.items() if status.state == "running"]
        running = await answered(_jobs(jobs, ids), limit)
        alive = sum(worker.alive and not worker.silent_seconds for worker in await asyncio.to_thread(jobs.workers))
    except (JobsUnavailable, OSError):  # signs of life may be unreadable
        return []
    return show_jobs([status.state for status in known.values()], running, alive)


async def _jobs(jobs: Jobs, ids: Iterable[str]) -> list[Job]:
    found = []
    for id in ids:
        with contextlib.suppress(JobDamaged, JobNotFound):  # the latter may be pruned just now
            found.append(await jobs.get(id))
    return found


def show_jobs(states: Iterable[JobState], running: Iterable[Job], workers: int) -> list[Metric]:
    """Returns the metrics of jobs in these states, of the running jobs, and of the number of workers."""
    found = Counter(states)
    counts = GaugeMetricFamily("resnext_jobs", "Training jobs on record", labels=["state"])
    for state in get_args(JobState):
        counts.add_metric([state], found[state])
    alive = GaugeMetricFamily("resnext_training_workers", "Training workers alive in this STATE folder", workers)
    phase = GaugeMetricFamily("resnext_job_phase", "1 for the phase that a running job is in", labels=["id", "phase"])
    done = GaugeMetricFamily("resnext_job_trained_ratio", "Share of a running job's epochs that is done", labels=["id"])
    rate = GaugeMetricFamily(
        "resnext_job_images_per_second", "Images per second that a running job trains on", labels=["id"]
    )
    for job in running:
        if job.phase:
            phase.add_metric([job.id, job.phase], 1)
        if step := job.progress.step:
            epochs = step.epoch - 1 + step.step / step.steps
            done.add_metric([job.id], epochs / step.epochs)
            if step.images_per_second is not None:
                rate.add_metric([job.id], step.images_per_second)
    return [counts, alive, phase, done, rate]
