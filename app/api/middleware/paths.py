"""Normalizes paths, as proxies and people write them."""

from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPaths:
    """Middleware that removes a proxy's prefix and a slash at the end. It is outside of everything that reads a path.

    A redirect to the path without its slash would lead to `http://` even behind a proxy that speaks TLS, and clients
    lose the body or the key when they follow it. `prefix` is as "/vision"; a path without the prefix is taken as it is,
    since many proxies remove it themselves.
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
