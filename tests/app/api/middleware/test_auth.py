import asyncio
import json
from pathlib import Path

import pytest

from app.api.access.keys import Key
from app.api.access.scopes import REQUIRED, SCOPES, Scope, includes
from app.main import create_app
from app.settings import Settings, SettingsError
from tests import process
from tests.app.conftest import Serve
from tests.app.world import until
from tests.process import answers, service

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


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("".join(f"{Key.of(f'{scope}-key', scope, scope).line}\n" for scope in SCOPES))
    return file


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_opens_what_its_scope_includes_and_nothing_else(serve: Serve, file: Path, scope: Scope) -> None:
    """Every route of the table is asked for, with nothing in the request that would do anything."""
    async with serve(api_keys_file=file) as (client, _):
        for route, needed in REQUIRED.items():
            method, path = route.replace("{version}", "0").replace("{", "").replace("}", "").split()
            answer = await client.request(method, path, headers={"x-api-key": scope}, content=b"{")
            refused = needed is not None and not includes(scope, needed)
            assert (answer.status_code == 403) == refused, (route, answer.text)
            assert answer.status_code != 401
            if refused:
                said = answer.json()
                sentence = f"this needs a key with the scope {needed}, the key '{scope}-key' has {scope}"
                assert said.get("error") == sentence or (said["detail"], said["scope"]) == (sentence, needed)
                assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'


async def test_requests_are_counted_by_the_name_of_their_key(serve: Serve, file: Path) -> None:
    async with serve(api_keys_file=file) as (client, _):
        for path, key in (("/models", "train"), ("/models", "predict"), ("/train", "predict"), ("/train", "wrong")):
            await client.get(path, headers={"x-api-key": key})
        text = (await client.get("/metrics", headers={"x-api-key": "admin"})).text
    lines = {line for line in text.splitlines() if line.startswith("resnext_key_requests_total{")}
    assert lines == {
        'resnext_key_requests_total{key="train-key",status="200"} 1.0',
        'resnext_key_requests_total{key="predict-key",status="200"} 1.0',
        'resnext_key_requests_total{key="predict-key",status="403"} 1.0',
    }


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a:b:c")
    with pytest.raises(SettingsError, match=r"line 1 of .*keys should be "):
        create_app(Settings(provider="cpu", api_keys_file=tmp_path / "keys"))


async def test_a_file_that_is_damaged_later_is_reported_by_health(serve: Serve, file: Path) -> None:
    async with serve(api_keys_file=file) as (client, services):
        assert (await client.get("/health", headers={"x-api-key": "admin"})).json()["keys_error"] is None
        await asyncio.to_thread(file.write_text, "a:b:c")
        await until(lambda: services.keys_error() is not None)
        error = (await client.get("/health", headers={"x-api-key": "admin"})).json()["keys_error"]
        assert error.startswith(f"line 1 of {file} should be ")
        assert (await client.get("/models", headers={"x-api-key": "predict"})).status_code == 200


def test_a_service_takes_new_keys_without_a_restart_and_names_them_in_its_log(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{Key.of('old', 'admin', 'secret-old').line}\n")
    with service(tmp_path, api_keys_file=str(file), log="json") as (running, port):
        url = f"http://127.0.0.1:{port}/models"
        assert answers(url, 401)
        assert answers(url, 200, {"x-api-key": "secret-old"})
        file.write_text(f"{Key.of('new', 'admin', 'secret-new').line}\n")
        process.until(lambda: answers(url, 200, {"x-api-key": "secret-new"}))
        assert answers(url, 401, {"x-api-key": "secret-old"})
        running.terminate()
        _, log = running.communicate(timeout=20)
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line.get("key") for line in lines if line["logger"] == "request"} == {None, "old", "new"}
    assert any("are new (admin)" in line["message"] for line in lines if "message" in line)
    assert "secret" not in log
