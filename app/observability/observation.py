"""What becomes known of a request and of a batch while they are under way: for the metrics, the log and the trace."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Closed = Literal["idle", "full", "delay"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """Of one image, in seconds: its wait for a thread, when it began (`time.perf_counter`), and how long it took."""

    waited: float
    begun: float
    seconds: float


@dataclass(slots=True, eq=False)
class Observation:
    """One request. Seconds are of `time.perf_counter`; a stage's are the longest of the request's images."""

    id: str
    started: float
    received: float = 0.0  # when its body had come, and it was admitted
    status: int = 0
    images: int = 0  # that the model has answered
    version: str = ""  # of the model that it leased
    waited: float = 0.0  # for a thread that decodes
    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    span: Any = None  # OpenTelemetry's, where it is traced; that is an extra
    decodes: list[Decoding] | None = None  # where it is traced: of each image

    def leased(self, version: str) -> None:
        """It will be answered by this version; there is nothing left to read of it."""
        self.version = version
        self.received = time.perf_counter()

    def decoded(self, decoding: Decoding) -> None:
        """One image of it is pixels now."""
        if decoding.waited > self.waited:  # max() takes longer than all else here
            self.waited = decoding.waited
        if decoding.seconds > self.decode:
            self.decode = decoding.seconds
        if self.decodes is not None:
            self.decodes.append(decoding)

    def answered(self, queue: float, infer: float) -> None:
        """One image of it has run."""
        self.images += 1
        if queue > self.queue:
            self.queue = queue
        if infer > self.infer:
            self.infer = infer


# of the request that the current task works for; whoever is below the routes finds it here, whatever the route
CURRENT: ContextVar[Observation | None] = ContextVar("observation", default=None)


class Queued(Protocol):
    """An image that was in the queue."""

    since: float
    request: Observation | None


@dataclass(slots=True, eq=False)
class Batch:
    """One run of the model. `closed` says why it was not larger: the model was idle, the batch full, the delay over.

    `queued` holds its images; whoever keeps a batch keeps them.
    """

    images: int
    closed: Closed
    started: float
    seconds: float
    failed: bool
    queued: Sequence[Queued]
