"""What becomes known of a request and of a batch while they are under way: for the metrics, the log and the trace."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

Closed = Literal["idle", "full", "delay"]


@dataclass(slots=True, eq=False)
class Observation:
    """One request. Seconds are of `time.perf_counter`; a stage's are the longest of the request's images."""

    id: str
    started: float
    received: float = 0.0  # when the last byte of its body had come
    status: int = 0
    images: int = 0  # that the model has answered
    version: str = ""  # of the model that it leased
    waited: float = 0.0  # for a thread that decodes
    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    span: Any = None  # OpenTelemetry's, where there are traces; that is an extra

    def decoded(self, waited: float, seconds: float) -> None:
        """One image of it is pixels now."""
        self.waited = max(self.waited, waited)
        self.decode = max(self.decode, seconds)

    def answered(self, queue: float, infer: float) -> None:
        """One image of it has run."""
        self.images += 1
        self.queue = max(self.queue, queue)
        self.infer = max(self.infer, infer)


# of the request that the current task works for; whoever is below the routes finds it here, whatever the route
CURRENT: ContextVar[Observation | None] = ContextVar("observation", default=None)


@dataclass(slots=True, eq=False)
class Batch:
    """One run of the model. `closed` says why it was not larger: the model was idle, the batch full, the delay over."""

    images: int
    closed: Closed
    started: float
    seconds: float
    failed: bool
    requests: Sequence[Observation | None]  # that each image belongs to
