"""A job as its clients see it, from the engine's rows and from what its folder holds."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from training.errors import TrainingError, words_of
from training.jobs.attempts import Attempts, job_and_attempt, moment, priority_of, reason_of, request_of
from training.jobs.job import UNFINISHED, Job, JobDamaged, JobRequest, JobState
from training.runs.progress import read_progress
from training.runs.records import PublishRecord, head_that_stays, verdict_of
from training.runs.run import Run

ROOM_BYTES = 2**20  # less is a full disk: the database takes a few pages, a record some kilobytes


def job_of(attempts: Attempts, state: JobState, run: Run, folder: Path) -> Job:
    """Makes a job of all its attempts, its state and its run. The newest row needs its input and output.

    `folder` is that of all jobs. Raises JobDamaged.
    """
    request = request_of(attempts[-1])
    try:
        return _job(attempts, request, state, run, folder)
    except (TrainingError, OSError, ValueError, LookupError) as error:  # the latter two for progress.jsonl
        id, _ = job_and_attempt(attempts[-1].workflow_id)
        why = words_of(error).replace(f"{run.folder}/", "")
        raise JobDamaged(f"the files of job {id} cannot be read: {why}") from error


def _job(attempts: Attempts, request: JobRequest, state: JobState, run: Run, folder: Path) -> Job:
    newest = attempts[-1]
    id, attempt = job_and_attempt(newest.workflow_id)
    verdict = verdict_of(run) if run.done("gating") else None
    started = _began(run)
    return Job(
        id=id,
        state=state,
        priority=priority_of(newest),
        attempt=attempt,
        created=moment(attempts[0].created_at) or datetime.now(UTC),
        started=started,
        finished=moment(newest.completed_at) if state not in UNFINISHED else None,
        worker=newest.executor_id,
        dataset=request.dataset,
        config=request.config,
        phase=run.next_phase() if started and state != "queued" else None,
        progress=read_progress(run.progress),
        verdict=verdict,
        version=_version_of(run),
        reason=reason_of(newest, state, verdict) or (_waiting(folder) if state == "running" else None),
    )


def _waiting(folder: Path) -> str | None:
    """Returns what a worker waits for before it can write down how far a job is, or how it has ended."""
    try:
        full = shutil.disk_usage(folder).free < ROOM_BYTES
    except OSError:  # only the worker has it
        return None
    if not full:
        return None
    return "the disk of the jobs is full: what comes next, and how the job ends, is written once there is room"


def _version_of(run: Run) -> int | None:
    """Returns the version that the run has made: the head's, where the training of all layers after it was rejected."""
    if not run.done("publishing"):
        return None
    return head_that_stays(run) or run.record("publishing", PublishRecord).version


def _began(run: Run) -> datetime | None:
    """Returns when the first attempt began, from the folder: the engine forgets the time at a cancel."""
    try:
        return datetime.fromtimestamp(run.config_file.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
