import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.api.middleware.head import Head
from tests.app.conftest import Serve, client_of
from tests.app.network import publish
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

PROBES = ["/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"]


async def test_head_is_get_without_a_body(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        for path in (*PROBES, "/", "/models", "/models/1", "/v2", "/metrics", "/nothing"):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        assert (await client.head("/predict")).headers["allow"] == "POST"


async def test_a_stream_without_an_end_is_answered_all_the_same() -> None:
    app = FastAPI()
    app.add_middleware(Head)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"part"
            await asyncio.sleep(0)

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(endless())

    async with asyncio.timeout(20), client_of(app) as client:
        assert (await client.head("/")).content == b""


async def test_a_405_names_all_methods(serve: Serve) -> None:
    async with serve() as (client, _):
        for method, path, allowed in (
            ("OPTIONS", "/datasets/x", "DELETE, GET, HEAD, PUT"),
            ("POST", "/datasets/x/", "DELETE, GET, HEAD, PUT"),
            ("PUT", "/models/1", "DELETE, GET, HEAD"),
            ("PATCH", "/train", "GET, HEAD, POST"),
            ("GET", "/v2/models/resnext50/infer", "POST"),
            ("POST", "/docs", "GET, HEAD"),
            ("DELETE", "/health/live", "GET, HEAD"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
