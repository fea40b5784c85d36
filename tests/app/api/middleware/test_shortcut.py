import httpx
import pytest
from fastapi import FastAPI, Request, Response

from app.api.middleware.shortcut import Shortcut
from app.api.problems import install_error_handlers
from app.errors import QueueFull
from tests.app.conftest import client_of

pytestmark = pytest.mark.anyio


async def endpoint(request: Request) -> Response:
    match (await request.body()).decode():
        case "full":
            raise QueueFull("no room", headers={"Retry-After": "7"})
        case "broken":
            raise ZeroDivisionError
    # FastAPI's router puts the route into the scope, the shortcut has none
    return Response("routed" if "route" in request.scope else "straight")


async def ask(method: str, path: str, body: str = "") -> httpx.Response:
    app = FastAPI()
    for at in ("/hot", "/cold"):
        app.add_api_route(at, endpoint, methods=["POST"])
    install_error_handlers(app)
    app.add_middleware(Shortcut, endpoints={"/hot": endpoint})
    async with client_of(app) as client:
        return await client.request(method, path, content=body)


async def test_a_post_to_the_path_goes_straight_and_nothing_else() -> None:
    assert (await ask("POST", "/hot")).text == "straight"
    assert (await ask("POST", "/cold")).text == "routed"
    assert (await ask("GET", "/hot")).status_code == 405
    assert (await ask("POST", "/hot/er")).status_code == 404


@pytest.mark.parametrize("path", ["/hot", "/cold"])
async def test_errors_are_the_same_problems_on_both_ways(path: str) -> None:
    full = await ask("POST", path, "full")
    assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (503, "queue_full", "7")
    broken = await ask("POST", path, "broken")
    assert (broken.status_code, broken.json()["code"]) == (500, "internal_error")
    assert broken.headers["content-type"] == "application/problem+json"
