"""Notes on a request and on a batch, taken while they are under way, for the metrics, the log and the trace."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from app.observability.timing import Decoding, Timing

Closed = Literal["idle", "full", "delay"]
# why a request was not answered: the queue was full, the deadline passed, its client left
Dropped = Literal["rejected", "expired", "cancelled"]


@dataclass(slots=True, eq=False)
class Observation:
    """One request. Moments are of `time.perf_counter`."""

    id: str
    started: float
    received: float = 0.0  # when its body had been read, and a version was leased for it
    status: int = 0
    version: str = ""  # the leased version of the model
    key: str = ""  # name of the API key that came, if it is one of the service's
    timings: list[Timing] = field(default_factory=list)  # of each image that the model has answered
    dropped: Dropped | None = None  # written by whoever drops the request, counted at its end
    span: Any = None  # Any: OpenTelemetry's, which is an extra; None where the request is not traced

    @property
    def images(self) -> int:
        """The number of images that the model has answered."""
        return len(self.timings)

    def leased(self, version: str) -> None:
        """Notes that this version will answer the request, whose body has been read."""
        self.version = version
        self.received = time.perf_counter()

    def drop(self, reason: Dropped) -> None:
        """Notes why the request is not answered; the first reason counts."""
        self.dropped = self.dropped or reason


# the request that the current task works for: code below the routes finds it here, whatever the route
CURRENT: ContextVar[Observation | None] = ContextVar("observation", default=None)


class Queued(Protocol):
    """An image that was in the queue from `since` on, after its decoding, if any."""

    since: float
    request: Observation | None
    decoding: Decoding | None


@dataclass(slots=True, eq=False)
class Batch:
    """One run of the model. `closed` says why it was not larger: the model was idle, the batch full, the delay over.

    `queued` holds the images themselves, so whoever keeps a batch keeps them in memory.
    """

    images: int
    closed: Closed
    started: float
    seconds: float
    failed: bool
    queued: Sequence[Queued]
