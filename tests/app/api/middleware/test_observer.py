import re

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from app.api.middleware.observer import Observer
from app.api.problems import install_error_handlers
from app.observability.metrics import Metrics
from app.observability.observation import CURRENT
from app.observability.requests import Requests
from tests.app.conftest import Serve, client_of

pytestmark = pytest.mark.anyio


async def ask(path: str, *ids: str) -> httpx.Response:
    """Sends a GET with these X-Request-IDs to an app whose one route answers with the id that it finds."""
    app = FastAPI()

    @app.get("/{what}")
    async def show(what: str) -> str:
        if what == "broken":
            raise ZeroDivisionError
        if what == "gone":
            raise HTTPException(410)
        request = CURRENT.get()
        assert request
        return request.id

    install_error_handlers(app)
    app.add_middleware(Observer, requests=Requests(Metrics()), paths=["/{what}"])
    async with client_of(app) as client:
        return await client.get(path, headers=[("X-Request-ID", id) for id in ids])


async def test_a_clients_id_goes_through_and_comes_back() -> None:
    answer = await ask("/id", "a-1.b_c:d/e+f=@g")
    assert answer.json() == answer.headers["x-request-id"] == "a-1.b_c:d/e+f=@g"


@pytest.mark.parametrize("id", ["", "two words", 'quo"te', "a" * 129, "back\\slash"])
async def test_an_id_that_would_have_to_be_quoted_is_replaced(id: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", (await ask("/id", id)).headers["x-request-id"])


@pytest.mark.parametrize(("path", "status"), [("/gone", 410), ("/broken", 500), ("/no/such/route", 404)])
async def test_errors_have_an_id_too(path: str, status: int) -> None:
    answer = await ask(path, "mine")
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine")


async def test_each_request_has_an_id_of_its_own(serve: Serve) -> None:
    async with serve() as (client, _):
        ids = {(await client.get("/health/live")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
