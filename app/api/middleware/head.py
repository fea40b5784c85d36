"""Answers HEAD wherever there is GET, as HTTP asks of every server and as load balancers probe."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Middleware that asks for GET in place of HEAD, and sends no body. A stream ends with its first part."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = False

        async def without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body"})

        await self.app({**scope, "method": "GET"}, receive, without_body)
