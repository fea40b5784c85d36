"""What goes over the wire."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from training.config import Recipe
from training.contract.activation import Failure
from training.contract.manifest import Parity, SplitMetrics, Variant
from training.contract.names import Name, usable_name
from training.datasets.report import DatasetReport
from training.jobs.job import Job
from training.jobs.presence import WorkerInfo


class Prediction(BaseModel):
    """One class and how likely it is."""

    label: str
    index: int = Field(description="position of the class in the model's labels")
    probability: float


class ImageProblem(BaseModel):
    """Why one image could not be classified."""

    code: str
    message: str


class Classified(BaseModel):
    """The most likely classes of one image, best first."""

    filename: str | None
    predictions: list[Prediction]


class Rejected(BaseModel):
    """One part that is no usable image; the others are not harmed."""

    filename: str | None
    error: ImageProblem


class ModelRef(BaseModel):
    """Which model answered."""

    name: str
    version: int


class PredictResponse(BaseModel):
    """One result for each image, in upload order."""

    model: ModelRef
    results: list[Classified | Rejected]


class LatencyPoint(BaseModel):
    """One run of the model, as measured when it was loaded."""

    batch: int
    milliseconds: float
    images_per_second: float


class StreamsHealth(BaseModel):
    """Runs of one thread side by side, as soon as an image waits for each."""

    count: int
    max_batch: int = Field(description="images in each, at most")
    latency: list[LatencyPoint] = Field(description="of all of them at once, by images in each")


class ModelHealth(BaseModel):
    """The live version and how it runs."""

    name: str
    version: int
    classes: int
    precision: str
    provider: str
    max_batch: int
    speeds: dict[str, float] = Field(
        description="images/s of each precision tried at load: on a CPU of one thread, on CUDA in batches of up to 16; "
        "measured beside whatever else the machine did then"
    )
    latency: list[LatencyPoint]
    streams: StreamsHealth | None = Field(description="what many waiting images are run in, unless it is slower")


class QueueHealth(BaseModel):
    """Images admitted and not yet answered."""

    depth: int
    capacity: int


class LoadErrorHealth(BaseModel):
    """Why the version that should be live is not."""

    version: int | None
    reason: str
    at: datetime


class RollbackHealth(BaseModel):
    """The service went back from a version by itself, as it did not load or failed on images."""

    from_version: int
    to_version: int
    reason: str
    at: datetime


Status = Literal["ready", "loading", "no_model", "draining"]


class TrainerHealth(BaseModel):
    """The training jobs and who runs them."""

    workers: list[WorkerInfo]
    queued: int | None = Field(description="jobs that wait; null while the jobs' database does not answer")
    running: list[str] = Field(description="ids of the jobs that run or are being cancelled")
    error: str | None = Field(description="why jobs can not be read, or the worker does not run")


class Health(BaseModel):
    """The service at a glance."""

    status: Status
    model: ModelHealth | None
    why_no_model: str | None = Field(description="why there is none, and what to do")
    queue: QueueHealth
    process: int = Field(description="id of the process that answers, which all but `trainer` is about")
    uptime_seconds: float
    load_error: LoadErrorHealth | None
    rollback: RollbackHealth | None = Field(description="the last one, until a version is activated through the API")
    trainer: TrainerHealth
    service_version: str


class Alive(BaseModel):
    """The answer of a probe."""

    status: str


class VersionSummary(BaseModel):
    """One version of the repository. `error` stands in place of the rest when its manifest can not be read."""

    version: int
    live: bool = Field(description="serves requests now")
    active: bool = Field(description="is the version that ACTIVE names")
    created: datetime | None = None
    metrics: dict[str, SplitMetrics] = {}
    variants: dict[str, Variant] = {}
    parity: Parity | None = None
    failure: Failure | None = Field(None, description="why it was taken back; activating it takes this away")
    error: str | None = None


class ModelList(BaseModel):
    """All versions of the served model, ascending."""

    name: str
    live: int | None
    active: int | None
    versions: list[VersionSummary]


class DatasetSummary(BaseModel):
    """One dataset. A mounted one is a folder that the operator put there; it is counted when it is asked for alone."""

    name: str
    source: Literal["uploaded", "mounted"]
    revision: int | None = Field(None, description="grows with each upload; a mounted dataset has none")
    created: datetime | None = None
    images: int | None = Field(None, description="readable images")
    classes: int | None = None
    bytes: int | None = Field(None, description="of the images' files")
    error: str | None = Field(None, description="why it can not be trained on")


class DatasetDetail(DatasetSummary):
    """One dataset with what `resnext dataset check` reports of it."""

    report: DatasetReport | None


class DatasetList(BaseModel):
    """All datasets, by name."""

    datasets: list[DatasetSummary]


def _reference(data: str) -> str:
    """A dataset's name, with a revision where `@` follows."""
    name, at, revision = data.partition("@")
    if at and not re.fullmatch(r"[1-9][0-9]{0,8}", revision):
        raise PydanticCustomError("revision", "what follows @ should be the number of a revision, as in photos@3")
    return usable_name(name) + at + revision


class TrainRequest(Recipe):
    """What a training job is asked for; only `data` has to be said."""

    data: Annotated[str, AfterValidator(_reference)] = Field(
        description="name of a dataset, `photos`, or one of its revisions, `photos@3`; by default the current one",
    )
    name: Name | None = Field(
        None,
        description="model name in the repository; by default the model that is served",
    )


class JobPage(BaseModel):
    """Jobs, the newest first; `total` counts those beyond this page too."""

    jobs: list[Job]
    total: int
    limit: int
    offset: int
