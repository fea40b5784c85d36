import pytest

from tests.app.conftest import Serve
from tests.app.network import publish
from training.contract import MODEL_FILE, ModelRepository

pytestmark = pytest.mark.anyio


async def test_no_model_is_live_and_not_ready(serve: Serve) -> None:
    async with serve() as (client, _):
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "no_model")
        health = (await client.get("/health")).json()
    assert (health["status"], health["model"], health["load_error"]) == ("no_model", None, None)


async def test_summary_of_a_ready_service(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(queue_size=100) as (client, services):
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        with services.admission.admit(3):
            health = (await client.get("/health")).json()
    model = health["model"]
    assert health["status"] == "ready"
    assert health["queue"] == {"depth": 3, "capacity": 100}
    assert health["uptime_seconds"] >= 0
    assert (model["name"], model["version"], model["precision"]) == ("resnext50", 1, "fp32")
    assert model["provider"] == "CPUExecutionProvider"
    assert model["max_batch"] in [point["batch"] for point in model["latency"]]
    assert all(point["milliseconds"] > 0 and point["images_per_second"] > 0 for point in model["latency"])


async def test_load_error_is_shown_without_the_servers_paths(serve: Serve, repository: ModelRepository) -> None:
    version = publish(repository)
    (repository.path(version) / MODEL_FILE).write_bytes(b"changed")
    async with serve() as (client, _):
        health = (await client.get("/health")).json()
        ready = await client.get("/health/ready")
    assert health["load_error"]["version"] == version
    assert health["load_error"]["reason"].startswith("resnext50/1/model.onnx should have SHA-256")
    assert str(repository.folder.parent) not in str(health) + ready.text
    assert ready.status_code == 503


async def test_draining_is_not_ready_and_closes_connections(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, services):
        assert "connection" not in (await client.get("/health/ready")).headers
        services.serving.draining = True
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert (await client.get("/health")).json()["status"] == "draining"
        assert (await client.get("/health/live")).status_code == 200
