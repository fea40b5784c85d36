"""What goes over the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from training.contract import Metrics, Parity, Variant


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


class ModelHealth(BaseModel):
    """The live version and how it runs."""

    name: str
    version: int
    precision: str
    provider: str
    max_batch: int
    latency: list[LatencyPoint]


class QueueHealth(BaseModel):
    """Images admitted and not yet answered."""

    depth: int
    capacity: int


class LoadErrorHealth(BaseModel):
    """Why the version that should be live is not."""

    version: int | None
    reason: str
    at: datetime


Status = Literal["ready", "loading", "no_model", "draining"]


class Health(BaseModel):
    """The service at a glance."""

    status: Status
    model: ModelHealth | None
    queue: QueueHealth
    uptime_seconds: float
    load_error: LoadErrorHealth | None
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
    metrics: dict[str, Metrics] = {}
    variants: dict[str, Variant] = {}
    parity: Parity | None = None
    error: str | None = None


class ModelList(BaseModel):
    """All versions of the served model, ascending."""

    name: str
    live: int | None
    active: int | None
    versions: list[VersionSummary]
