"""Answers HEAD wherever there is GET, as HTTP asks of every server and as load balancers probe."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Middleware that asks for GET in place of HEAD, and sends no body. A stream ends with its first part."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            return self._without_body(scope, receive, send)
        return self.app(scope, receive, send)  # no coroutine of its own, which each step of a request would pass

    async def _without_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = False

        async def headers_alone(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body"})

        await self.app({**scope, "method": "GET"}, receive, headers_alone)
