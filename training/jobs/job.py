"""One training job: what was asked for, what its clients see, and what can be wrong with a question about it."""

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
    """The part of a job that shows whether it has changed."""

    attempt: int
    state: JobState


class JobError(TrainingError):
    """A job that cannot be used as asked."""


class JobNotFound(JobError):
    """A job that does not exist, or was pruned."""


class JobFinished(JobError):
    """A job that is over, so that there is nothing to cancel."""


class JobNotResumable(JobError):
    """A job that is neither cancelled nor failed, so that it cannot be resumed."""


class JobDamaged(JobError):
    """A job whose row in the database, or whose folder, cannot be read."""


class KeyReused(JobError):
    """An idempotency key that came with another request before."""


class WorkerAlive(JobError):
    """A worker that still runs, so that its jobs cannot go to others."""


class JobsUnavailable(JobError):
    """A database that does not answer."""


class DatasetRef(BaseModel):
    """The dataset that a job trains on. Without a revision it is a folder that the operator put there."""

    name: Name
    revision: int | None = None
    fingerprint: str | None = None


class JobRequest(BaseModel):
    """The request for a job, as the engine keeps it in the database."""

    config: TrainConfig
    dataset: DatasetRef


class UnreadableJob(BaseModel):
    """A job of which only the id is known, and why the rest cannot be read."""

    id: str
    error: str


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
    phase: Phase | None = Field(description="the phase it is in, or ended in")
    progress: Progress
    verdict: Verdict | None
    version: int | None = Field(description="the version that it published, active or kept aside")
    reason: str | None = Field(
        description="why it failed or was rejected; of a job that succeeded, why the head that it published first "
        "stays active; of one that runs, what it waits for"
    )
