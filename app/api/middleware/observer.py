"""Observes each request over HTTP, and adds its id and `nosniff` to the answer. Only OwnPaths is further out."""

import functools
from collections.abc import Iterable

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability.requests import HEADER, OTHER, Requests

KNOWN_PATHS = 1024
NOSNIFF = (b"x-content-type-options", b"nosniff")  # a browser takes an answer for what its Content-Type says, no more


class Observer:
    """Middleware that observes. `paths` are the routes, as "/train/{id}"; metrics call every other path "other"."""

    def __init__(self, app: ASGIApp, requests: Requests, paths: Iterable[str]) -> None:
        self.app = app
        self._requests = requests
        self._paths = [(compile_path(path)[0], path) for path in dict.fromkeys(paths)]
        self._route_of = functools.lru_cache(KNOWN_PATHS)(self._find_route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = self._requests.begin(scope)
        header = (HEADER, request.id.encode())

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                message["headers"] = [*message.get("headers", ()), NOSNIFF, header]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except Exception:
            request.status = request.status or 500  # no inner part has answered
            raise
        finally:
            self._requests.end(scope, self._route_of(scope["path"]), request)

    def _find_route(self, path: str) -> str:
        return next((template for pattern, template in self._paths if pattern.match(path)), OTHER)
