import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.main import EXPOSED_HEADERS, create_app
from app.settings import Settings, SettingsError
from tests.app.conftest import Serve, client_of
from tests.app.network import encoded, publish, random_images
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio


async def schema_of(serve: Serve, **settings: object) -> dict[str, Any]:  # Any: JSON
    async with serve(**settings) as (client, _):
        assert (await client.get("/docs")).status_code == 200
        schema: dict[str, Any] = (await client.get("/openapi.json")).json()
    return schema


async def test_openapi_shows_both_ways_to_send_an_image(serve: Serve) -> None:
    body = (await schema_of(serve))["paths"]["/predict"]["post"]["requestBody"]
    files = body["content"]["multipart/form-data"]["schema"]["properties"]["file"]
    assert files["type"] == "array"
    assert files["items"] == {"type": "string", "format": "binary"}
    assert body["content"]["image/*"]["schema"]["format"] == "binary"


async def test_openapi_documents_every_error_as_a_problem(serve: Serve) -> None:
    schema = await schema_of(serve)
    assert "HTTPValidationError" not in str(schema)
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    kind = "application/json" if path.startswith("/v2") else "application/problem+json"
                    assert list(response["content"]) == [kind], (path, method, status)
    assert {"400", "401", "413", "415", "422", "500", "503", "504"} <= schema["paths"]["/predict"]["post"][
        "responses"
    ].keys()


async def test_openapi_says_which_texts_are_taken(serve: Serve) -> None:
    paths = (await schema_of(serve))["paths"]
    version = pattern_of(paths["/v2/models/{name}/versions/{version}/ready"]["get"], "version")
    event = pattern_of(paths["/train/{id}/events"]["get"], "last-event-id")
    assert pattern_of(paths["/train/{id}/events"]["get"], "last_event_id") == event
    for text, taken in (("7", True), ("1234567890", False), ("-1", False), ("", False), ("x", False)):
        assert bool(re.search(version, text)) is taken
    for text, taken in (("", True), ("0-1-running", True), ("421", True), ("421-1", False), ("1-1-over", False)):
        assert bool(re.search(event, text)) is taken
    form = paths["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["additionalProperties"] is False


def pattern_of(operation: dict[str, Any], parameter: str) -> str:
    (schema,) = (found["schema"] for found in operation["parameters"] if found["name"] == parameter)
    pattern: str = schema["pattern"]
    return pattern


async def test_openapi_asks_for_a_key_only_when_there_are_keys(serve: Serve) -> None:
    assert "security" not in (await schema_of(serve))["paths"]["/predict"]["post"]
    paths = (await schema_of(serve, api_keys="secret"))["paths"]
    assert paths["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in paths["/health"]["get"]


PAGE = "https://page.example"


async def test_cors(serve: Serve) -> None:
    asking = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    async with serve(cors_origins=PAGE, api_keys="secret") as (client, _):
        preflight = await client.options("/predict", headers=asking)
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-headers"] == "x-api-key"
        assert "x-request-id" in preflight.headers
    async with serve() as (client, _):
        assert "access-control-allow-origin" not in (await client.get("/models", headers=asking)).headers


def fail(_: Request) -> Response:
    raise RuntimeError("a secret detail")


KEY = {"x-api-key": "secret"}
ANSWERS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "by a route": ("GET", "/models", KEY, 200),
    "by no route": ("GET", "/no/such/path", KEY, 404),
    "by a route of another method": ("GET", "/predict", KEY, 405),
    "of a route that raises": ("GET", "/raising", KEY, 500),
    "of a hot route that raises": ("POST", "/raising", KEY, 500),
    "of a protocol's route that raises": ("GET", "/v2/raising", KEY, 500),
    "by the keys": ("POST", "/predict", {}, 401),
    "by the limit": ("POST", "/predict", KEY | {"content-length": "99999999999"}, 413),
    "without a model": ("POST", "/predict", KEY, 503),
    "of the pages": ("GET", "/docs", {}, 200),
    "of the pages' files": ("GET", "/docs/swagger-ui.css", {}, 200),
    "for another host": ("GET", "/docs", {"host": "elsewhere.example"}, 421),
    "with a slash": ("GET", "/health/", {}, 200),
}


@pytest.mark.parametrize(("method", "path", "headers", "status"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_page_on_another_origin_can_read_every_answer(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    settings = {"models": tmp_path, "state": tmp_path, "provider": "cpu", "cors_origins": PAGE, "api_keys": "secret"}
    settings["trusted_hosts"] = "ours.example"
    app = create_app(Settings.model_validate(settings))
    app.router.routes.extend([Route("/raising", fail), Route("/v2/raising", fail)])
    hot: Any = next(layer.kwargs["endpoints"] for layer in app.user_middleware if "endpoints" in layer.kwargs)
    hot["/raising"] = fail
    async with client_of(app) as client:
        answer = await client.request(method, path, headers=headers | {"origin": PAGE})
    assert answer.status_code == status
    assert "secret detail" not in answer.text
    assert answer.headers["access-control-allow-origin"] == PAGE
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "retry-after", "location", "server-timing", "x-next-offset"} <= exposed
    assert answer.headers.get_list("x-request-id", split_commas=True)[1:] == []
    assert answer.headers["x-request-id"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_every_header_that_is_documented_is_exposed() -> None:
    schema = create_app(Settings(provider="cpu")).openapi()
    answers = [a for methods in schema["paths"].values() for op in methods.values() for a in op["responses"].values()]
    assert {name for answer in answers for name in answer.get("headers", {})} <= set(EXPOSED_HEADERS)


@pytest.mark.parametrize("prefix", ["", "/vision", "vision/", "/a/b"])
async def test_every_path_is_served_with_a_slash_at_its_end_and_under_the_prefix(
    serve: Serve, repository: ModelRepository, prefix: str
) -> None:
    publish(repository)
    image = encoded(random_images(1)[0])
    proxied = {"host": "api.example", "x-forwarded-proto": "https", "content-type": "image/png"}
    async with serve(root_path=prefix, api_keys="secret") as (client, _):
        roots = {"", f"/{prefix.strip('/')}".rstrip("/")}
        for root, slash in itertools.product(roots, ("", "/", "//")):
            for path in ("/health", "/health/ready", "/v2/health/live", "/docs", "/openapi.json"):
                answer = await client.get(root + path + slash, headers=proxied)
                assert answer.status_code == 200, (root + path + slash, answer.text)
            for path in ("/models", "/models/1", "/v2", "/v2/models/resnext50", "/train", "/datasets", "/metrics"):
                assert (await client.get(root + path + slash)).status_code == 401
                answer = await client.get(root + path + slash, headers=proxied | KEY)
                assert answer.status_code == 200, (root + path + slash, answer.text)
            answer = await client.post(f"{root}/predict{slash}", content=image, headers=proxied | KEY)
            assert answer.status_code == 200, answer.text
        answer = await client.get("/no/such/path/", headers=KEY)
        assert (answer.status_code, answer.json()["detail"]) == (404, "GET /no/such/path: Not Found")
        metrics = (await client.get("/metrics", headers=KEY)).text
    assert 'route="/predict",status="200"' in metrics


async def test_a_prefix_is_one_of_whole_names(serve: Serve) -> None:
    async with serve(root_path="/he") as (client, _):
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/he/health")).status_code == 200
        assert (await client.get("/healthy")).status_code == 404


def test_a_prefix_that_is_a_route_of_the_service_is_refused() -> None:
    for prefix in ("/models", "/v2/models"):
        with pytest.raises(SettingsError, match="RESNEXT_ROOT_PATH should not be the beginning of a route, it is /"):
            create_app(Settings(provider="cpu", root_path=prefix))


async def test_addresses_that_the_service_sends_have_the_prefix(serve: Serve) -> None:
    schema = await schema_of(serve, root_path="/vision")
    assert schema["servers"] == [{"url": "/vision"}]
    assert "servers" not in await schema_of(serve)


def test_import_brings_no_training_library() -> None:
    heavy = "{'tensorflow', 'keras', 'tf2onnx', 'onnx', 'matplotlib', 'sklearn'}"
    code = f"import sys, app.main, app.__main__; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 1)  # sys.exit('') ends with 1 and prints nothing
