import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from app.api.middleware.limits import JSON_BYTES, MOST_VALUES, BodyLimit
from app.api.problems import install_error_handlers
from app.inference.upload_memory import UploadMemory
from tests.app.conftest import client_of
from tests.app.world import until

pytestmark = pytest.mark.anyio


class Text(BaseModel):
    text: str


def make_app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(BodyLimit, limit=100, dataset_limit=1000, memory=UploadMemory(1000))

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


def make_large_app(memory: UploadMemory | None = None) -> FastAPI:
    app = FastAPI()
    memory = memory or UploadMemory(10 * JSON_BYTES)
    app.add_middleware(BodyLimit, limit=3 * JSON_BYTES, dataset_limit=4 * JSON_BYTES, memory=memory)
    install_error_handlers(app)

    @app.api_route("/{path:path}", methods=["POST", "PUT", "DELETE"])
    async def length(request: Request) -> int:
        return len(await request.body())

    return app


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/predict", 3),
        ("POST", "/v2/models/resnext50/infer", 3),
        ("POST", "/v2/models/resnext50/versions/7/infer", 3),
        ("PUT", "/datasets/x", 4),
        ("POST", "/train", 1),
        ("POST", "/v2/repository/index", 1),
        ("POST", "/v2/repository/models/infer/load", 1),
        ("POST", "/v2/models/a/b/infer", 1),
        ("PUT", "/predict", 1),
        ("DELETE", "/datasets/x", 1),
        ("POST", "/nothing", 1),
    ],
)
async def test_only_images_and_datasets_may_be_large(method: str, path: str, limit: int) -> None:
    async with client_of(make_large_app()) as client:
        size = limit * JSON_BYTES
        assert (await client.request(method, path, content=bytes(size))).json() == size
        assert (await client.request(method, path, content=bytes(size + 1))).status_code == 413


async def test_json_has_few_values() -> None:
    async with client_of(make_large_app()) as client:
        assert (await client.post("/train", content=b"1," * MOST_VALUES)).status_code == 200
        many = b"1," * (MOST_VALUES + 1)
        answer = await client.post("/train", content=chunked(many))
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
        assert "at most 2000 values" in answer.json()["detail"]
        assert (await client.post("/v2/models/resnext50/infer", content=many)).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/v2/models/resnext50/infer"])
async def test_bodies_under_way_take_memory_and_give_it_back(path: str) -> None:
    memory = UploadMemory(4 * JSON_BYTES)
    arrived, go = asyncio.Event(), asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield bytes(2 * JSON_BYTES)
        arrived.set()
        await go.wait()

    async with client_of(make_large_app(memory)) as client:
        first = asyncio.create_task(client.post(path, content=held()))
        await arrived.wait()
        await until(lambda: memory.taken == 2 * JSON_BYTES)
        large = bytes(2 * JSON_BYTES)
        for answer in (await client.post(path, content=large), await client.post(path, content=chunked(large))):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.post(path, content=bytes(JSON_BYTES))).status_code == 200  # a small one has room
        assert (await client.put("/datasets/x", content=large)).status_code == 200
        assert memory.taken == 2 * JSON_BYTES
        go.set()
        assert (await first).status_code == 200
        assert memory.taken == 0
        assert (await client.post(path, content=large)).status_code == 200


async def test_a_body_whose_length_finds_no_room_is_not_read() -> None:
    memory = UploadMemory(JSON_BYTES)
    others = memory.lease()
    others.take(JSON_BYTES // 2)
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield bytes(JSON_BYTES)

    async with client_of(make_large_app(memory)) as client:
        answer = await client.post("/predict", content=body(), headers={"content-length": str(JSON_BYTES)})
    assert (answer.status_code, read) == (503, False)


async def test_a_request_alone_is_taken_and_one_that_fails_gives_back() -> None:
    memory = UploadMemory(1000)
    app = make_large_app(memory)

    @app.middleware("http")
    async def fail(request: Request, _: object) -> Response:
        await request.body()
        raise RuntimeError

    async with client_of(make_large_app(memory)) as client:
        assert (await client.post("/predict", content=bytes(JSON_BYTES))).json() == JSON_BYTES
    async with client_of(app) as client:
        assert (await client.post("/predict", content=bytes(100))).status_code == 500
    assert memory.taken == 0
