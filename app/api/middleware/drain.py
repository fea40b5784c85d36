"""Telling clients that the process is about to end."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.processes.drain import Drain


class AnnounceDrain:
    """Pure ASGI: while draining, every answer closes its connection, so that a client's next request goes elsewhere."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def announce(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self.app(scope, receive, announce if scope["type"] == "http" else send)
