"""GET / and /docs: pages for people. They load nothing from other servers."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

FOLDER = Path(__file__).parent
SWAGGER = FOLDER / "swagger"
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
BASE = b"{base}"  # stands in a page for the path from it to the service's root
HEADERS = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}

_inline = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def make_router(root_path: str) -> APIRouter:
    """Reads the pages and returns their routes. `root_path` is the prefix under which a proxy serves them, or ""."""
    router = APIRouter()
    index, docs = (FOLDER / "index.html").read_bytes(), (FOLDER / "docs.html").read_bytes()
    scripts, styles = _hashes(index, "script"), _hashes(index, "style")
    policy = f"script-src {scripts}; style-src {styles}; img-src data: blob:; connect-src 'self'; form-action 'self'"
    router.add_route("/", _page(index, policy, root_path))
    # Swagger UI writes styles into its elements, and uses inline pictures
    scripts = _hashes(docs, "script")
    policy = f"script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
    router.add_route("/docs", _page(docs, policy, root_path))
    router.add_route("/docs/{file}", _swagger)
    return router


def _page(content: bytes, policy: str, root_path: str) -> Callable[[Request], Awaitable[Response]]:
    headers = {
        **HEADERS,
        "Content-Security-Policy": f"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; {policy}",
    }

    async def page(request: Request) -> Response:
        return HTMLResponse(content.replace(BASE, _way_to_root(request, root_path).encode()), headers=headers)

    return page


def _way_to_root(request: Request, root_path: str) -> str:
    """Returns the root's address. It is relative when no prefix is set, since a proxy may have removed one."""
    if root_path:
        return f"{root_path}/"
    came: bytes = request.scope.get("raw_path", b"")  # still with a slash at its end, if it had one
    return "../" if len(came) > 1 and came.endswith(b"/") else "./"


async def _swagger(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in SWAGGER_FILES:
        raise HTTPException(404)
    return FileResponse(SWAGGER / name, headers={"Cache-Control": "max-age=3600"})


def _hashes(page: bytes, kind: str) -> str:
    """Returns the hashes of a page's inline scripts or styles, as its Content-Security-Policy names them."""
    digests = [hashlib.sha256(text).digest() for found, text in _inline.findall(page) if found == kind.encode()]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
