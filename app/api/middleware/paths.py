"""Addresses as proxies and people write them."""

from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPaths:
    """Pure ASGI, outside of all that looks at a path: takes off the prefix of a proxy, and a slash at the end.

    A redirect to the path without its slash would lead to `http://`, also behind a proxy that speaks TLS, and clients
    lose the body or the key on the way. `prefix` is as "/vision"; a path without it is taken as it is, since many
    proxies take it off themselves.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if self._prefix and f"{path}/".startswith(f"{self._prefix}/"):
                path = path[len(self._prefix) :]
            if path[-1:] == "/" or not path:
                path = path.rstrip("/") or "/"
            if path != scope["path"]:
                scope = {**scope, "path": path}
        await self.app(scope, receive, send)
