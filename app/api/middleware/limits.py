"""Limits the size of a request's body while it streams in, and the memory of all of them."""

import re
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer
from app.errors import ServiceError, UploadTooLarge
from app.inference.upload_memory import Lease, UploadMemory

JSON_BYTES = 1024**2  # of any body that holds neither images nor a dataset
MOST_VALUES = 2000  # in such a body; the request for a training has less than a hundred
Kind = Literal["images", "dataset", "JSON"]
IMAGES = re.compile(r"/predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")


class BodyLimit:
    """Middleware that refuses a body over `limit` bytes where images come, and over `dataset_limit` bytes for
    `PUT /datasets/{name}`. All else is JSON of at most JSON_BYTES, with few values: each costs far more than its bytes,
    and more still if a complaint is made of it.

    What comes takes its bytes of `memory` until the request is answered; a dataset goes to the disk and takes none.

    FastAPI's own `max_body_size` does the same, but answers in plain text and not with a problem.
    """

    def __init__(self, app: ASGIApp, limit: int, dataset_limit: int, memory: UploadMemory) -> None:
        self.app = app
        self._limit = limit
        self._dataset_limit = dataset_limit
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kind, limit = self._limits(scope)
        body = _Body(kind, limit, self._memory.lease(), receive)
        try:
            body.check(dict(scope["headers"]).get(b"content-length", b""))
        except ServiceError as error:
            # the connection stays open: closing it while the client sends would reset it, and this answer would be lost
            await answer(error, scope["path"])(scope, receive, send)
            return
        try:
            await self.app(scope, body.receive, send)
        finally:
            if body.lease.bytes:
                body.lease.end()

    def _limits(self, scope: Scope) -> tuple[Kind, int]:
        """Returns what the body holds, and the most bytes."""
        path: str = scope["path"]
        if scope["method"] == "POST" and IMAGES.fullmatch(path):
            return "images", self._limit
        if scope["method"] == "PUT" and path.startswith("/datasets/"):
            return "dataset", self._dataset_limit
        return "JSON", min(JSON_BYTES, self._limit)


class _Body:
    """The body of one request, which is counted as it comes in."""

    def __init__(self, kind: Kind, limit: int, lease: Lease, receive: Receive) -> None:
        self.lease = lease
        self._kind = kind
        self._limit = limit
        self._receive = receive
        self._received = 0
        self._commas = 0

    def check(self, announced: bytes) -> None:
        """Raises UploadTooLarge, UploadsFull for a body whose announced length shows that it cannot be taken."""
        if not announced.isdigit():
            return
        length = int(announced)
        if length > self._limit:
            raise _error(self._limit, f"{length} bytes are announced")
        if self._kind == "images":
            self.lease.require(length)

    async def receive(self) -> Message:
        """Receives a message. Raises UploadTooLarge, UploadsFull."""
        message = await self._receive()
        body = message.get("body", b"")
        self._received += len(body)
        if self._received > self._limit:
            raise _error(self._limit, f"the upload was cut off after {self._received}")
        if self._kind == "images":
            self.lease.take(len(body))
        elif self._kind == "JSON":
            self._commas += body.count(b",")
            if self._commas > MOST_VALUES:
                raise UploadTooLarge(f"a JSON body should have at most {MOST_VALUES} values, this one has more")
        return message


def _error(limit: int, came: str) -> UploadTooLarge:
    return UploadTooLarge(f"a request's body should have at most {limit} bytes, {came}")
