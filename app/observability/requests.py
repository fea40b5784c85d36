"""Where the requests of every protocol begin and end: each gets its id, and is counted when it is answered."""

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
# what can stand in a log, a header and a shell without being quoted
_id_of_client = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch

# told of a request that is over: its scope, the route's path, what was observed, seconds to the last byte of its answer
OnEnd = Callable[[Scope, str, Observation, float], None]


class Requests:
    """`on_begin` is told of a request that begins, `on_end` of one that is over. For the event loop's thread alone.

    A scope is ASGI's: "method", "path" and "headers" are looked at. A gRPC call has one too, since it is a POST.
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
        self._ids = map((os.urandom(6).hex() + "-{:x}").format, itertools.count(1))  # a uuid4 takes four times as long

    def begin(self, scope: Scope) -> Observation:
        """With the client's `X-Request-ID`, or one that is made. The current task works for it from now on."""
        started = time.perf_counter()
        request = Observation(self._id_of(scope), started)
        if self._on_begin:
            self._on_begin(scope, request)
        CURRENT.set(request)  # a task of its own has a context of its own: there is nothing to set back
        return request

    def end(self, scope: Scope, route: str, request: Observation) -> None:
        """It is answered, or broken off before there was an answer. A route is as "/train/{id}", or OTHER."""
        seconds = time.perf_counter() - request.started
        request.status = request.status or CLIENT_CLOSED_REQUEST
        if request.status == CLIENT_CLOSED_REQUEST:
            request.drop("cancelled")
        method = OTHER if route == OTHER else scope["method"]  # what comes there is not for us to say
        self._metrics.count_request(method, route, request, seconds)
        for tell in self._on_end:
            tell(scope, route, request, seconds)

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == HEADER and _id_of_client(value):
                return str(value, "ascii")
        return next(self._ids)
