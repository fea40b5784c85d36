"""The engine's rows as attempts at jobs: attempt 1 has the job's id, attempt n has `<id>.<n>`."""

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from training.contract.verdict import Verdict
from training.jobs.job import JobDamaged, JobRequest, JobState

if TYPE_CHECKING:
    from dbos import WorkflowStatus

MAX_RECOVERIES = 50  # of one attempt, each after its worker had ended
MIDDLE = 1000  # the engine's priorities count from 1, the lowest first

ATTEMPT_ID = re.compile(r"([a-z0-9-]+)(?:\.([1-9][0-9]{0,8}))?")

Attempts = list["WorkflowStatus"]


class Outcome(BaseModel):
    """The result of an attempt, which the engine keeps."""

    state: Literal["succeeded", "rejected", "failed"]
    reason: str | None


class _Input(BaseModel):
    """The arguments of an attempt, as the engine keeps them: the job's id and the request."""

    args: tuple[str, JobRequest]


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
    """Returns the job's id and the number of the attempt. Raises ValueError when it is no id of `attempt_id`."""
    if not (match := ATTEMPT_ID.fullmatch(attempt_id)):
        raise ValueError(f"an attempt's id should be like 20260102-030405-0a1b2c.2, it is {attempt_id[:80]!r}")
    return match[1], int(match[2] or 1)


def by_job(rows: Iterable["WorkflowStatus"]) -> dict[str, Attempts]:
    """Groups attempts by the job's id, the oldest attempt first. Rows under an id of another form are left out."""
    jobs: dict[str, Attempts] = {}
    ours = [row for row in rows if ATTEMPT_ID.fullmatch(row.workflow_id)]
    for row in sorted(ours, key=lambda row: job_and_attempt(row.workflow_id)):
        jobs.setdefault(job_and_attempt(row.workflow_id)[0], []).append(row)
    return jobs


def request_of(row: "WorkflowStatus") -> JobRequest:
    """Returns what the attempt was asked to do. The row needs its input. Raises JobDamaged."""
    own, _ = job_and_attempt(row.workflow_id)
    try:
        id, request = _Input.model_validate(row.input).args
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise JobDamaged(
            f"job {own} cannot be read: its row in the jobs' database should hold a request in the format "
            f"portable_json, it holds {str(row.input)[:40]!r} ({place + ': ' if place else ''}{problem['msg']})"
        ) from None
    if id != own:
        raise JobDamaged(f"job {own} cannot be read: its row holds the request of another one, {id[:80]!r}")
    return request


def outcome_of(row: "WorkflowStatus") -> Outcome | None:
    """Returns the result of an attempt; None where there is none, or none that can be read. The row needs its output.

    An outcome that cannot be read counts as failed, so that the job can be resumed.
    """
    try:
        return Outcome.model_validate(row.output)
    except ValidationError:
        return None


def priority_of(row: "WorkflowStatus") -> int:
    """Returns the job's priority; higher runs sooner, 0 is the middle."""
    return MIDDLE - (number(row.priority) or MIDDLE)


def moment(milliseconds: int | None) -> datetime | None:
    """Returns the time of one of the engine's timestamps."""
    return datetime.fromtimestamp(number(milliseconds) / 1000, UTC) if number(milliseconds) else None


def number(value: int | None) -> int:
    """Returns a number of a row, 0 where there is none: SQLite keeps whatever was written into its column."""
    return value if isinstance(value, int) and abs(value) < 2**47 else 0


def reason_of(row: "WorkflowStatus", state: JobState, verdict: Verdict | None) -> str | None:
    """Returns why a job failed or was rejected, else None. The row needs its output."""
    if verdict and (state == "rejected" or (state == "succeeded" and not verdict.passed)):
        return "; ".join(verdict.reasons)
    if row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return f"its worker ended {MAX_RECOVERIES} times while it ran"
    if state != "failed":
        return None
    if outcome := outcome_of(row):
        return outcome.reason
    if row.error is None or isinstance(row.error, str):  # the engine's text of what it could not read
        return "its outcome in the jobs' database cannot be read"
    return f"the engine failed: {row.error}"
