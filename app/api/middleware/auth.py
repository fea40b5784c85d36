"""Lets a request through if its caller may do what it asks for."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.access.access import Access
from app.api.access.granted import grant
from app.api.access.scopes import required
from app.api.problems import answer
from app.errors import ServiceError
from app.observability.observation import CURRENT


class Guard:
    """Middleware that refuses what the caller may not do, and notes what the caller may do."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            needed = required(scope["method"], scope["path"])
            try:
                caller = self._access.caller(Headers(scope=scope), needed)
                if request := CURRENT.get():
                    request.key = caller.key
                self._access.require(caller, needed, (scope.get("client") or ("",))[0])
            except ServiceError as error:
                await answer(error, scope["path"])(scope, receive, send)
                return
            grant(caller.scope)
        await self.app(scope, receive, send)
