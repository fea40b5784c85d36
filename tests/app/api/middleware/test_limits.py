from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

from app.api.middleware.limits import BodyLimit
from app.api.problems import install_error_handlers
from tests.app.conftest import client_of

pytestmark = pytest.mark.anyio


class Text(BaseModel):
    text: str


def make_app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(BodyLimit, limit=100, dataset_limit=1000)

    @app.post("/json")
    async def json(body: Text) -> int:
        return len(body.text)

    @app.put("/datasets/{name}")
    async def dataset(name: str, request: Request) -> dict[str, int]:
        return {name: len(await request.body())}

    @app.post("/datasets/{name}")
    async def other(name: str, request: Request) -> dict[str, int]:
        return {name: len(await request.body())}

    return app


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 30):
        yield data[start : start + 30]


async def send(method: str, path: str, data: bytes, *, announced: bool) -> httpx.Response:
    headers = {"content-type": "application/json"}
    async with client_of(make_app()) as client:
        return await client.request(method, path, content=data if announced else chunked(data), headers=headers)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "limit"), [("POST", "/json", 100), ("PUT", "/datasets/x", 1000), ("POST", "/datasets/x", 100)]
)
async def test_each_route_has_its_limit(method: str, path: str, limit: int, announced: bool) -> None:
    data = b'{"text": "' + b"x" * (limit - 12) + b'"}'
    assert (await send(method, path, data, announced=announced)).status_code == 200
    answer = await send(method, path, data + b" ", announced=announced)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert answer.headers["content-type"] == "application/problem+json"
    came = f"{limit + 1} bytes are announced" if announced else f"the upload was cut off after {limit + 1}"
    assert answer.json()["detail"] == f"a request's body should have at most {limit} bytes, {came}"
