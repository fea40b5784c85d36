"""Limits the size of a request's body while it streams in."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer
from app.errors import UploadTooLarge

JSON_BYTES = 1024**2  # of any body that holds neither images nor a dataset
MOST_VALUES = 2000  # in such a body; the request for a training has less than a hundred
IMAGES = re.compile(r"/predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")


class BodyLimit:
    """Middleware that refuses a body over `limit` bytes where images come, and over `dataset_limit` bytes for
    `PUT /datasets/{name}`. All else is JSON of at most JSON_BYTES, with few values: each costs far more than its bytes,
    and more still if a complaint is made of it.

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
        limit, is_json = self._limits(scope)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            # the connection stays open: closing it while the client sends would reset it, and this answer would be lost
            await answer(_error(limit, f"{announced} bytes are announced"), scope["path"])(scope, receive, send)
            return
        received, commas = 0, 0

        async def counted() -> Message:
            nonlocal received, commas
            message = await receive()
            body = message.get("body", b"")
            received += len(body)
            if received > limit:
                raise _error(limit, f"the upload was cut off after {received}")
            if is_json:
                commas += body.count(b",")
                if commas > MOST_VALUES:
                    raise UploadTooLarge(f"a JSON body should have at most {MOST_VALUES} values, this one has more")
            return message

        await self.app(scope, counted, send)

    def _limits(self, scope: Scope) -> tuple[int, bool]:
        """Returns the most bytes, and whether the body is JSON."""
        path: str = scope["path"]
        if scope["method"] == "PUT" and path.startswith("/datasets/"):
            return self._dataset_limit, False
        if scope["method"] == "POST" and IMAGES.fullmatch(path):
            return self._limit, False
        return min(JSON_BYTES, self._limit), True


def _error(limit: int, came: str) -> UploadTooLarge:
    return UploadTooLarge(f"a request's body should have at most {limit} bytes, {came}")
