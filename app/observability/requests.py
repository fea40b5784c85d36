"""The begin and the end of a request, whatever its protocol: it gets an id, and is counted when it is over."""

import itertools
import os
import re
import time
from collections.abc import Sequence
from typing import Self

from starlette.types import Scope

from app.errors import CLIENT_CLOSED_REQUEST
from app.observability.metrics import Metrics
from app.observability.observation import CURRENT, Batch, Observation

HEADER = b"x-request-id"
OTHER = "other"
# characters that need no quotes in a log, a header or a shell
_id_of_client = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch


class Watcher:
    """A follower of requests beside the metrics, while its context is open. This one does nothing.

    A scope is ASGI's, and only "method", "path" and "headers" are read; a gRPC call has one too, since it is a POST.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def begin(self, scope: Scope, request: Observation) -> None:
        """Called when a request begins."""

    def end(self, scope: Scope, route: str, request: Observation, seconds: float) -> None:
        """Called when a request is over; `seconds` is the time to the last byte of the answer."""

    def batch(self, batch: Batch) -> None:
        """Called after each run of the model, in the thread that ran it."""


class Requests:
    """The requests of this process, which the metrics count and watchers follow. For the event loop's thread alone."""

    def __init__(self, metrics: Metrics, watchers: Sequence[Watcher] = ()) -> None:
        self._metrics = metrics
        self._watchers = watchers
        self._ids = map((os.urandom(6).hex() + "-{:x}").format, itertools.count(1))  # uuid4 takes four times as long

    def begin(self, scope: Scope) -> Observation:
        """Returns the notes on a new request, for which the current task works from now on.

        Its id is the client's `X-Request-ID`, or a new one.
        """
        started = time.perf_counter()
        request = Observation(self._id_of(scope), started)
        for watcher in self._watchers:
            watcher.begin(scope, request)
        CURRENT.set(request)  # each request has its own task, hence its own context: nothing to reset
        return request

    def end(self, scope: Scope, route: str, request: Observation) -> None:
        """Counts a request that was answered, or broken off. `route` is a path like "/train/{id}", or OTHER."""
        seconds = time.perf_counter() - request.started
        request.status = request.status or CLIENT_CLOSED_REQUEST
        if request.status == CLIENT_CLOSED_REQUEST:
            request.drop("cancelled")
        # for a path that is no route a client may send any method, and each would be a new series
        method = OTHER if route == OTHER else scope["method"]
        self._metrics.count_request(method, route, request, seconds)
        for watcher in self._watchers:
            watcher.end(scope, route, request, seconds)

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == HEADER and _id_of_client(value):
                return str(value, "ascii")
        return next(self._ids)
