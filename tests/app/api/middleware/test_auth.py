import pytest

from tests.app.conftest import Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first"},
        {"authorization": "bearer  second"},
        {"x-api-key": "second"},
        {"x-api-key": "first", "authorization": "Basic Zmlyc3Q="},
    ],
)
async def test_any_key_lets_in(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(api_keys="first,second") as (client, _):
        assert (await client.get("/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer third"},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
        {"x-api-key": "first,second"},
    ],
)
async def test_anything_else_is_401(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(api_keys="first,second") as (client, _):
        answer = await client.get("/models", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_key_that_is_not_ascii(serve: Serve) -> None:
    async with serve(api_keys="schlüssel") as (client, _):
        assert (await client.get("/models", headers=[(b"x-api-key", "schlüssel".encode())])).status_code == 200
        assert (await client.get("/models", headers=[(b"x-api-key", b"\xff\xfe")])).status_code == 401


@pytest.mark.parametrize(
    ("path", "open_"),
    [
        ("/health", True),
        ("/health/live", True),
        ("/docs", True),
        ("/healthy", False),
        ("/predict", False),
        ("/models/1", False),
        ("/nowhere", False),
    ],
)
async def test_open_paths(serve: Serve, path: str, open_: bool) -> None:
    async with serve(api_keys="first") as (client, _):
        assert ((await client.get(path)).status_code != 401) == open_


async def test_no_keys_no_question(serve: Serve) -> None:
    async with serve() as (client, _):
        assert (await client.get("/models")).status_code == 200


async def test_every_route_asks_for_a_key_as_the_schema_says(serve: Serve) -> None:
    async with serve(api_keys="first") as (client, _):
        schema = (await client.get("/openapi.json")).json()
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                answer = await client.request(method, path)
                assert (answer.status_code == 401) == ("security" in operation), (method, path)
        for path in ("/", "/docs", "/docs/swagger-ui.css"):
            assert (await client.get(path)).status_code == 200
