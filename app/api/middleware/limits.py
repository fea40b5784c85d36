"""Limits the size of a request's body while it streams in."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer
from app.errors import UploadTooLarge


class BodyLimit:
    """Middleware that refuses a body over `limit` bytes, or over `dataset_limit` bytes for `PUT /datasets/{name}`.

    FastAPI's own `max_body_size` does the same, but answers in plain text and not with a problem.
    """

    def __init__(self, app: ASGIApp, limit: int, dataset_limit: int) -> None:
        self.app = app
        self._limit = limit
        self._dataset_limit = dataset_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._dataset_limit if _is_dataset_upload(scope) else self._limit
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            # the connection stays open: closing it while the client sends would reset it, and this answer would be lost
            await answer(_error(limit, f"{announced} bytes are announced"), scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _error(limit, f"the upload was cut off after {received}")
            return message

        await self.app(scope, counted, send)


def _is_dataset_upload(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "PUT" and path.startswith("/datasets/")


def _error(limit: int, came: str) -> UploadTooLarge:
    return UploadTooLarge(f"a request's body should have at most {limit} bytes, {came}")
