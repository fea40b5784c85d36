"""The outermost middleware: each request gets its id, and is counted when it is answered."""

import functools
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability.metrics import Metrics
from app.observation import CURRENT, Observation

HEADER = b"x-request-id"
OTHER = "other"
KNOWN_PATHS = 1024
# what can stand in a log, a header and a shell without being quoted
_id_of_client = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch

# told of a request that is over: its scope, the route's path, what was observed, seconds to the last byte of its answer
OnAnswer = Callable[[Scope, str, Observation, float], None]


class Observer:
    """Pure ASGI. Takes a client's `X-Request-ID` or makes one, and sends it back; counts what was answered.

    `on_request` is told of a request that begins, `on_answer` of one that is over. `paths` are the routes', as
    "/train/{id}": the labels of the metrics; any other is "other".
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        paths: Iterable[str],
        on_answer: Sequence[OnAnswer] = (),
        on_request: Callable[[Scope, Observation], None] | None = None,
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._on_answer = on_answer
        self._on_request = on_request
        self._paths = [(compile_path(path)[0], path) for path in dict.fromkeys(paths)]
        self._route_of = functools.lru_cache(KNOWN_PATHS)(self._find_route)
        self._ids = map((os.urandom(6).hex() + "-{:x}").format, itertools.count(1))  # a uuid4 takes four times as long

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request = Observation(self._id_of(scope), started)
        header = (HEADER, request.id.encode())
        if self._on_request:
            self._on_request(scope, request)
        CURRENT.set(request)  # a task of its own has a context of its own: there is nothing to set back

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except Exception:
            request.status = request.status or 500  # Starlette answers, outside of here
            raise
        finally:
            request.status = request.status or 499  # broken off before there was an answer
            self._count(scope, request)

    def _count(self, scope: Scope, request: Observation) -> None:
        seconds = time.perf_counter() - request.started
        route = self._route_of(scope["path"])
        method = OTHER if route == OTHER else scope["method"]  # what comes there is not for us to say
        self._metrics.count_request(method, route, request, seconds)
        for tell in self._on_answer:
            tell(scope, route, request, seconds)

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == HEADER and _id_of_client(value):
                return str(value, "ascii")
        return next(self._ids)

    def _find_route(self, path: str) -> str:
        return next((template for pattern, template in self._paths if pattern.match(path)), OTHER)
