"""The begin and the end of a request, whatever its protocol: it gets an id, and is counted when it is over."""

import itertools
import os
import re
import time
from collections.abc import Callable, Sequence

from starlette.types import Scope

from app.errors import CLIENT_CLOSED_REQUEST
from app.observability.metrics import Metrics
from app.observability.observation import CURRENT, Observation

HEADER = b"x-request-id"
OTHER = "other"
# characters that need no quotes in a log, a header or a shell
_id_of_client = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch

# called with a request that is over: its scope, the route's path, its notes, seconds to the last byte of the answer
OnEnd = Callable[[Scope, str, Observation, float], None]


class Requests:
    """The requests of this process. For the event loop's thread alone.

    `on_begin` is called when a request begins, each of `on_end` when it is over. A scope is ASGI's, and only "method",
    "path" and "headers" are read; a gRPC call has one too, since it is a POST.
    """

    def __init__(
        self,
        metrics: Metrics,
        on_end: Sequence[OnEnd] = (),
        on_begin: Callable[[Scope, Observation], None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._on_end = on_end
        self._on_begin = on_begin
        self._ids = map((os.urandom(6).hex() + "-{:x}").format, itertools.count(1))  # uuid4 takes four times as long

    def begin(self, scope: Scope) -> Observation:
        """Returns the notes on a new request, for which the current task works from now on.

        Its id is the client's `X-Request-ID`, or a new one.
        """
        started = time.perf_counter()
        request = Observation(self._id_of(scope), started)
        if self._on_begin:
            self._on_begin(scope, request)
        CURRENT.set(request)  # each request has its own task, hence its own context: nothing to reset
        return request

    def end(self, scope: Scope, route: str, request: Observation) -> None:
        """Counts a request that was answered, or broken off. `route` is a path like "/train/{id}", or OTHER."""
        seconds = time.perf_counter() - request.started
        request.status = request.status or CLIENT_CLOSED_REQUEST
        if request.status == CLIENT_CLOSED_REQUEST:
            request.drop("cancelled")
        method = (
            OTHER if route == OTHER else scope["method"]
        )  # there a client may send any method, and each would be a new series
        self._metrics.count_request(method, route, request, seconds)
        for tell in self._on_end:
            tell(scope, route, request, seconds)

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == HEADER and _id_of_client(value):
                return str(value, "ascii")
        return next(self._ids)
