"""The engine's rows as attempts at jobs: attempt 1 has the job's id, the n-th `<id>.<n>`."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from training.contract.verdict import Verdict
from training.jobs.job import JobState

if TYPE_CHECKING:
    from dbos import WorkflowStatus

MAX_RECOVERIES = 50  # of one attempt, each after its worker had ended
MIDDLE = 1000  # the engine's priorities count from 1, the lowest first

Attempts = list["WorkflowStatus"]


def new_id(key: str | None) -> str:
    """Sorts by time, to a quarter of a millisecond. The same from the same key: the database makes it unique."""
    if key is not None:
        return f"key-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    now = time.time()
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{int(now % 1 * 4096):03x}{secrets.randbelow(4096):03x}"


def attempt_id(id: str, attempt: int) -> str:
    return id if attempt == 1 else f"{id}.{attempt}"


def split(workflow_id: str) -> tuple[str, int]:
    id, _, attempt = workflow_id.partition(".")
    return id, int(attempt or 1)


def by_job(rows: Iterable["WorkflowStatus"]) -> dict[str, Attempts]:
    """Attempts of each job, oldest first."""
    jobs: dict[str, Attempts] = {}
    for row in sorted(rows, key=lambda row: split(row.workflow_id)):
        jobs.setdefault(split(row.workflow_id)[0], []).append(row)
    return jobs


def arguments(row: "WorkflowStatus") -> tuple[str, dict[str, Any]]:
    """The job's id and its request: config and dataset."""
    assert row.input is not None
    id, request = row.input["args"]
    return id, request


def priority_of(row: "WorkflowStatus") -> int:
    return MIDDLE - (row.priority or MIDDLE)


def moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def reason_of(row: "WorkflowStatus", state: JobState, verdict: Verdict | None) -> str | None:
    if state == "rejected" and verdict:
        return "; ".join(verdict.reasons)
    if row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return f"its worker ended {MAX_RECOVERIES} times while it ran"
    if state != "failed":
        return None
    return row.output["reason"] if row.output else f"the engine failed: {row.error}"
