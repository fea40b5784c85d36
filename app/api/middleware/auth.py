"""Checks API keys."""

import hmac
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import answer
from app.errors import Unauthorized


class Keys:
    """The service's API keys. Without any key, every request is let through."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def admit(self, headers: Mapping[str, str]) -> None:
        """Raises Unauthorized when the headers, with names in lower case, carry none of the keys."""
        if self._keys and not self._knows(_presented(headers)):
            raise Unauthorized(
                "this needs one of the service's API keys, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _knows(self, presented: bytes) -> bool:
        # every key is compared, each in constant time, so that the time of an answer reveals nothing about the keys
        matches = [hmac.compare_digest(presented, key) for key in self._keys]
        return any(matches)


class ApiKeys:
    """Middleware that lets a request through if it carries one of the keys or its path is open.

    `open_paths` are paths of routes; `/docs/{file}` opens all below `/docs/`.
    """

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: Sequence[str]) -> None:
        self.app = app
        self._keys = keys
        self._open = frozenset(open_paths)
        self._open_below = tuple(path.partition("{")[0] for path in open_paths if "{" in path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            try:
                self._keys.admit(Headers(scope=scope))
            except Unauthorized as error:
                await answer(error, scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(self._open_below)


def _presented(headers: Mapping[str, str]) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")  # the bytes as they were sent
