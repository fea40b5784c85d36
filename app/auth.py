"""API keys."""

import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Unauthorized, service_problem

OPEN_PATHS = ("/health", "/docs", "/openapi.json")


class ApiKeys:
    """Pure ASGI: lets a request through that carries one of the keys, or asks for an open path."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope["path"]) or self._knows(_presented(Headers(scope=scope))):
            await self.app(scope, receive, send)
            return
        error = Unauthorized(
            "this needs one of the service's API keys, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await service_problem(error)(scope, receive, send)

    def _knows(self, presented: bytes) -> bool:
        # every key is compared, each in constant time: the answer's time tells nothing about them
        matches = [hmac.compare_digest(presented, key) for key in self._keys]
        return any(matches)


def _is_open(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in OPEN_PATHS)


def _presented(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")  # the bytes as they came
