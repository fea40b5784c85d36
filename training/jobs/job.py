"""One training job as its clients see it, and what can be wrong with a request about one."""

from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from training.config import TrainConfig
from training.contract.names import Name
from training.contract.verdict import Verdict
from training.errors import TrainingError
from training.runs.progress import Phase, Progress

JobState = Literal["queued", "running", "cancelling", "cancelled", "failed", "succeeded", "rejected"]
UNFINISHED: tuple[JobState, ...] = ("queued", "running", "cancelling")


class JobStatus(NamedTuple):
    """As little of a job as tells whether it has changed."""

    attempt: int
    state: JobState


class JobError(TrainingError):
    """A job that can not be used as asked."""


class JobNotFound(JobError):
    """There is no job of this id, or it was pruned."""


class JobFinished(JobError):
    """It is over: there is nothing to cancel."""


class JobNotResumable(JobError):
    """Neither cancelled nor failed."""


class KeyReused(JobError):
    """An idempotency key that came with another request before."""


class WorkerAlive(JobError):
    """A worker whose jobs should go to others runs."""


class JobsUnavailable(JobError):
    """The database does not answer."""


class DatasetRef(BaseModel):
    """What a job trains on. Without a revision it is a folder that the operator put there."""

    name: Name
    revision: int | None = None
    fingerprint: str | None = None


class Job(BaseModel):
    """One training job."""

    id: str
    state: JobState
    priority: int = Field(description="higher runs sooner")
    attempt: int = Field(description="1, and one more for each resume or reassignment")
    created: datetime
    started: datetime | None = Field(description="when its first attempt began")
    finished: datetime | None = Field(description="when its newest attempt ended")
    worker: str | None = Field(description="who runs it, or ran it last")
    dataset: DatasetRef
    config: TrainConfig
    phase: Phase | None = Field(description="the one it is in, or was ended in")
    progress: Progress
    verdict: Verdict | None
    version: int | None = Field(description="what it published, live or kept aside")
    reason: str | None = Field(description="why it failed or was rejected")
