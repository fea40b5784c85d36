import subprocess
import sys
from typing import Any

import pytest

from tests.app.conftest import Serve
from tests.app.network import publish
from training.contract import ModelRepository

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


async def test_openapi_asks_for_a_key_only_when_there_are_keys(serve: Serve) -> None:
    assert "security" not in (await schema_of(serve))["paths"]["/predict"]["post"]
    paths = (await schema_of(serve, api_keys="secret"))["paths"]
    assert paths["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in paths["/health"]["get"]


async def test_cors(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    asking = {"origin": "https://page.example", "access-control-request-method": "POST"}
    async with serve(cors_origins="https://page.example", api_keys="secret") as (client, _):
        preflight = await client.options("/predict", headers=asking)
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"
        refused = await client.get("/models", headers={"origin": "https://page.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"
    async with serve() as (client, _):
        assert "access-control-allow-origin" not in (await client.get("/models", headers=asking)).headers


def test_import_brings_no_training_library() -> None:
    heavy = "{'tensorflow', 'keras', 'tf2onnx', 'onnx', 'matplotlib', 'sklearn'}"
    code = f"import sys, app.main, app.__main__; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 1)  # sys.exit('') is 1, with nothing to say
