"""The engine's rows as attempts at jobs: attempt 1 has the job's id, attempt n has `<id>.<n>`."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from training.contract.verdict import Verdict
from training.jobs.job import JobRequest, JobState

if TYPE_CHECKING:
    from dbos import WorkflowStatus

MAX_RECOVERIES = 50  # of one attempt, each after its worker had ended
MIDDLE = 1000  # the engine's priorities count from 1, the lowest first

Attempts = list["WorkflowStatus"]


def new_id(key: str | None) -> str:
    """Returns an id that sorts by time, to a quarter of a millisecond. The same key gives the same id.

    The id need not be unique: the database refuses one that is taken.
    """
    if key is not None:
        return f"key-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    now = time.time()
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{int(now % 1 * 4096):03x}{secrets.randbelow(4096):03x}"


def attempt_id(id: str, attempt: int) -> str:
    """Returns the engine's id of an attempt, from 1."""
    return id if attempt == 1 else f"{id}.{attempt}"


def job_and_attempt(attempt_id: str) -> tuple[str, int]:
    """Returns the job's id and the number of the attempt."""
    id, _, attempt = attempt_id.partition(".")
    return id, int(attempt or 1)


def by_job(rows: Iterable["WorkflowStatus"]) -> dict[str, Attempts]:
    """Groups attempts by the job's id, the oldest attempt first."""
    jobs: dict[str, Attempts] = {}
    for row in sorted(rows, key=lambda row: job_and_attempt(row.workflow_id)):
        jobs.setdefault(job_and_attempt(row.workflow_id)[0], []).append(row)
    return jobs


def request_of(row: "WorkflowStatus") -> JobRequest:
    """Returns what the attempt was asked to do. The row needs its input."""
    assert row.input is not None
    _, request = row.input["args"]
    return JobRequest.model_validate(request)


def priority_of(row: "WorkflowStatus") -> int:
    """Returns the job's priority; higher runs sooner, 0 is the middle."""
    return MIDDLE - (row.priority or MIDDLE)


def moment(milliseconds: int | None) -> datetime | None:
    """Returns the time of one of the engine's timestamps."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def reason_of(row: "WorkflowStatus", state: JobState, verdict: Verdict | None) -> str | None:
    """Returns why a job failed or was rejected, else None. The row needs its output."""
    if verdict and (state == "rejected" or (state == "succeeded" and not verdict.passed)):
        return "; ".join(verdict.reasons)
    if row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return f"its worker ended {MAX_RECOVERIES} times while it ran"
    if state != "failed":
        return None
    return row.output["reason"] if row.output else f"the engine failed: {row.error}"
