"""The JSON bodies of requests and answers."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.watch import Kind
from training.config import Recipe
from training.contract.activation import Failure
from training.contract.manifest import Parity, SplitMetrics, Variant
from training.contract.names import Name, usable_name
from training.datasets.report import DatasetReport
from training.jobs.job import Job, UnreadableJob
from training.jobs.presence import WorkerInfo


class Prediction(BaseModel):
    """One class and how likely it is."""

    label: str
    index: int = Field(description="position of the class in the model's labels")
    probability: float


class ImageProblem(BaseModel):
    """The reason why one image could not be classified."""

    code: str
    message: str


class Classified(BaseModel):
    """The most likely classes of one image, best first."""

    filename: str | None
    predictions: list[Prediction]


class Rejected(BaseModel):
    """An image that could not be used, and why. The other images of the request are answered all the same."""

    filename: str | None
    error: ImageProblem


class ModelRef(BaseModel):
    """The model and the version that answered."""

    name: str
    version: int


class PredictResponse(BaseModel):
    """The live version and one result for each image, in upload order."""

    model: ModelRef
    results: list[Classified | Rejected]


class LatencyPoint(BaseModel):
    """The time of one model run, measured when the version was loaded."""

    batch: int
    milliseconds: float
    images_per_second: float


class StreamsHealth(BaseModel):
    """Several one-thread runs side by side. They are used once an image waits for each of them."""

    count: int
    max_batch: int = Field(description="most images in one stream's run")
    latency: list[LatencyPoint] = Field(description="time of all streams running at once, by images in each")


class ModelHealth(BaseModel):
    """The live version, how it runs and how fast."""

    name: str
    version: int
    classes: int
    precision: str
    provider: str
    max_batch: int
    speeds: dict[str, float] = Field(
        description="images per second of each precision that was tried at load: on a CPU with one thread, on CUDA in "
        "batches of up to 16. Other work on the machine at that time slowed them down"
    )
    latency: list[LatencyPoint]
    streams: StreamsHealth | None = Field(
        description="how images run when many wait; null on a GPU, on OpenVINO and with one thread, where streams are "
        "not used"
    )


class QueueHealth(BaseModel):
    """The images that were admitted and are not yet answered, and how many may be."""

    depth: int
    capacity: int


class LoadErrorHealth(BaseModel):
    """The last version that did not load, and why."""

    version: int | None
    reason: str
    at: datetime


class RollbackHealth(BaseModel):
    """A return to an earlier version, made by the service because a version did not load or failed on images."""

    from_version: int
    to_version: int
    reason: str
    at: datetime


class OverdueHealth(BaseModel):
    """Work that takes longer than it may. It ends by itself, or is ended, unless it is stuck."""

    kind: Kind
    what: str
    seconds: float = Field(description="time since it began, or since its last sign of life")
    limit: float = Field(description="seconds that it may take")
    stuck: bool = Field(description="whether nothing but a restart ends it")
    reason: str = Field(description="all this in words")


Status = Literal["ready", "loading", "no_model", "draining", "stuck"]


class TrainerHealth(BaseModel):
    """The training jobs and the workers that run them."""

    workers: list[WorkerInfo]
    queued: int | None = Field(description="number of jobs that wait; null while the jobs' database does not answer")
    running: list[str] = Field(description="ids of the jobs that are running or being cancelled")
    error: str | None = Field(
        description="why the jobs cannot be read or the worker does not run; null when all is well"
    )


class ModelBrief(BaseModel):
    """The live version."""

    name: str
    version: int


class HealthBrief(BaseModel):
    """The state of the service, as a caller sees it who may not train."""

    status: Status
    ready: bool
    model: ModelBrief | None


class Health(BaseModel):
    """The state of the service, as a caller sees it who may train."""

    status: Status
    ready: bool
    model: ModelHealth | None
    why_no_model: str | None = Field(description="why no model is live, and what to do; null when one is")
    queue: QueueHealth
    process: int = Field(
        description="id of the process that answers. Everything here but `trainer` is about this process"
    )
    uptime_seconds: float
    load_error: LoadErrorHealth | None
    overdue: list[OverdueHealth] = Field(description="work that takes longer than it may, the longest first")
    rollback: RollbackHealth | None = Field(
        description="the last rollback; null once a version is activated through the API"
    )
    trainer: TrainerHealth
    keys_error: str | None = Field(description="why the newest file of API keys does not count; null when it does")
    service_version: str


class Alive(BaseModel):
    """The answer to a probe."""

    status: str


class VersionSummary(BaseModel):
    """One version in the repository. When its manifest cannot be read, `error` says why and the rest is missing."""

    version: int
    live: bool = Field(description="whether this version serves requests now")
    active: bool = Field(description="whether ACTIVE names this version")
    created: datetime | None = None
    metrics: dict[str, SplitMetrics] = {}
    variants: dict[str, Variant] = {}
    parity: Parity | None = None
    failure: Failure | None = Field(
        None, description="why the service went back from this version; cleared when the version is activated"
    )
    error: str | None = None


class ModelList(BaseModel):
    """All versions of the served model, in ascending order."""

    name: str
    live: int | None
    active: int | None
    error: str | None = Field(
        None, description="why it cannot be read which version is active, or which have failed; activating one mends it"
    )
    versions: list[VersionSummary]


class DatasetSummary(BaseModel):
    """One dataset. A mounted dataset is a folder that the operator put there; only GET /datasets/{name} counts it."""

    name: str
    source: Literal["uploaded", "mounted"]
    revision: int | None = Field(None, description="number that grows with each upload; a mounted dataset has none")
    created: datetime | None = None
    images: int | None = Field(None, description="number of readable images")
    classes: int | None = None
    bytes: int | None = Field(None, description="size of the image files")
    error: str | None = Field(None, description="why the dataset cannot be trained on")


class DatasetDetail(DatasetSummary):
    """One dataset with its report, as `resnext dataset check` prints it."""

    report: DatasetReport | None


class DatasetList(BaseModel):
    """All datasets, by name."""

    datasets: list[DatasetSummary]


def _reference(data: str) -> str:
    """Checks a dataset's name and the revision that may follow `@`. Returns the text with the name in NFC."""
    name, at, revision = data.partition("@")
    if at and not re.fullmatch(r"[1-9][0-9]{0,8}", revision):
        raise PydanticCustomError("revision", "what follows @ should be the number of a revision, as in photos@3")
    return usable_name(name) + at + revision


class TrainRequest(Recipe):
    """The request for a training job. Only `data` is required."""

    data: Annotated[str, AfterValidator(_reference)] = Field(
        description="name of a dataset, `photos`, or one of its revisions, `photos@3`; by default its current revision",
    )
    name: Name | None = Field(
        None,
        description="name under which the model is published; by default the model that is served",
    )


class JobPage(BaseModel):
    """One page of the jobs, newest first. `total` counts all jobs that match, also those on other pages."""

    jobs: list[Job]
    unreadable: list[UnreadableJob] = Field(description="jobs of this page that cannot be read, and why")
    total: int
    limit: int
    offset: int
