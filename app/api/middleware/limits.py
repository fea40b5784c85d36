"""A bound on a request's body, kept while it streams in."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer
from app.errors import UploadTooLarge


class BodyLimit:
    """Pure ASGI. FastAPI's own `max_body_size` does the same and answers in plain text, not with a problem.

    `limit` is in bytes; `dataset_limit` is that of `PUT /datasets/{name}`.
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
            # the connection stays open: closing it with bytes on their way resets it, and the client never reads this
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
