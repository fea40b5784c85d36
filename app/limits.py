"""A bound on a request's body, kept while it streams in."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import UploadTooLarge, service_problem


class BodyLimit:
    """Pure ASGI. FastAPI's own `max_body_size` does the same and answers in plain text, not with a problem."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limit:
            # the connection stays open: closing it with bytes on their way resets it, and the client never reads this
            await service_problem(self._error(f"{announced} bytes are announced"))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise self._error(f"the upload was cut off after {received}")
            return message

        await self.app(scope, counted, send)

    def _error(self, came: str) -> UploadTooLarge:
        return UploadTooLarge(f"a request's body should have at most {self.limit} bytes, {came}")
