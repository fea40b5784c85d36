"""What a caller who may only classify is not told: why a version does not load, or was taken back."""

from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.api.access.keys import Key
from app.api.access.scopes import SCOPES
from app.errors import NoModel
from tests.app.conftest import Serve
from tests.app.network import publish
from tests.app.world import break_file
from tests.process import free_port
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

REASON = "should have SHA-256"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("\n".join(Key.of(scope, scope, scope).line for scope in SCOPES))
    return file


async def test_why_no_version_is_live(serve: Serve, repository: ModelRepository, file: Path) -> None:
    break_file(repository, publish(repository))
    port = free_port()
    async with serve(api_keys_file=file, grpc_port=port) as (client, _):
        for path in ("/health/ready", "/v2/health/ready", "/v2/models/resnext50/ready"):
            shown = {key: (await client.get(path, headers={"x-api-key": key})).text for key in ("predict", "train")}
            assert NoModel.PUBLIC in shown["predict"], path
            assert REASON in shown["train"], path
        assert NoModel.PUBLIC in (await client.get("/health/ready")).text
        assert NoModel.PUBLIC in (await client.post("/predict", headers={"x-api-key": "predict"})).text
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            asked = service_pb2.ModelMetadataRequest(name="resnext50")
            for key, said in (("predict", NoModel.PUBLIC), ("train", REASON)):
                call = stub.ModelMetadata(asked, metadata=[("x-api-key", key)])
                assert said in await call.details()


async def test_that_none_is_active_is_no_secret(serve: Serve, file: Path) -> None:
    async with serve(api_keys_file=file) as (client, _):
        assert "train one with" in (await client.get("/health/ready")).text


async def test_why_a_version_was_taken_back(serve: Serve, repository: ModelRepository, file: Path) -> None:
    publish(repository)
    break_file(repository, publish(repository, seed=1))
    (repository.path(publish(repository, seed=2, activate=False)) / "manifest.json").write_text("{")
    async with serve(api_keys_file=file) as (client, _):
        for key, told in (("predict", False), ("train", True)):
            headers = {"x-api-key": key}
            versions = (await client.get("/models", headers=headers)).json()["versions"]
            assert [version["version"] for version in versions] == [1, 2, 3]
            assert (REASON in str(versions[1]["failure"])) == told
            assert ("not a valid manifest" in versions[2]["error"]) == told
            assert ("not a valid manifest" in (await client.get("/models/3", headers=headers)).text) == told
            index = (await client.post("/v2/repository/index", headers=headers)).json()
            assert [version["state"] for version in index] == ["READY", "UNAVAILABLE", "UNAVAILABLE"]
            assert (REASON in index[1]["reason"]) == told
