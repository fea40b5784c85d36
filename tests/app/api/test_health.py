import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.api.access.keys import Key
from app.api.access.scopes import SCOPES
from app.execution.measured import Curve
from app.execution.model import Streams
from app.execution.runner import DirectRunner
from app.execution.session import open_session
from tests.app.conftest import Serve
from tests.app.network import encoded, network, publish
from tests.app.world import until
from training.contract.manifest import MODEL_FILE
from training.contract.repository import ModelRepository
from training.jobs.presence import Presence

pytestmark = pytest.mark.anyio


async def test_no_model_is_live_and_not_ready(serve: Serve) -> None:
    async with serve() as (client, _):
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "no_model")
        health = (await client.get("/health")).json()
    assert (health["status"], health["model"], health["load_error"]) == ("no_model", None, None)
    assert health["rollback"] is None


async def test_a_stranger_sees_what_a_probe_needs(serve: Serve, repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    file = tmp_path / "keys"
    file.write_text("\n".join(Key.of(scope, scope, scope).line for scope in SCOPES))
    brief = {"status": "ready", "ready": True, "model": {"name": "resnext50", "version": 1}}
    async with serve(api_keys_file=file) as (client, _):
        for key in ("", "wrong", "predict"):
            assert (await client.get("/health", headers={"x-api-key": key})).json() == brief
        for key in ("train", "admin"):
            shown = (await client.get("/health", headers={"x-api-key": key})).json()
            assert shown.keys() >= {"process", "load_error", "rollback", "trainer", "keys_error"}
    async with serve(host="0.0.0.0") as (client, _):
        assert (await client.get("/health")).json() == brief
    async with serve(host="0.0.0.0", insecure=True) as (client, _):
        assert "trainer" in (await client.get("/health")).json()
    async with serve() as (client, _):
        assert "trainer" in (await client.get("/health")).json()
        assert (await client.get("/health", headers={"host": "elsewhere.example"})).json() == brief


async def test_summary_of_a_ready_service(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(queue_size=100) as (client, services):
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        before = time.monotonic()
        with services.inference.admission.admit(3):
            health = (await client.get("/health")).json()
        after = time.monotonic()
    model = health["model"]
    assert health["status"] == "ready"
    assert health["queue"] == {"depth": 3, "capacity": 100}
    assert before - services.started - 0.001 <= health["uptime_seconds"] <= after - services.started + 0.001
    assert (model["name"], model["version"], model["precision"]) == ("resnext50", 1, "fp32")
    assert model["provider"] == "CPUExecutionProvider"
    assert model["max_batch"] in [point["batch"] for point in model["latency"]]
    assert all(point["milliseconds"] > 0 and point["images_per_second"] > 0 for point in model["latency"])


async def test_what_hangs_is_told_and_only_what_nothing_ends_fails_the_probes(
    serve: Serve, repository: ModelRepository
) -> None:
    publish(repository)
    async with serve() as (client, services):
        load = services.watch.begin("load", "the load of version 2", -1)
        health = (await client.get("/health")).json()
        assert (health["status"], len(health["overdue"])) == ("ready", 1)
        assert (health["overdue"][0]["kind"], health["overdue"][0]["stuck"]) == ("load", False)
        assert health["overdue"][0]["reason"].startswith("the load of version 2 has not ended in 0 s, its limit is -1")
        assert (await client.get("/health/ready")).status_code == 200

        run = services.watch.begin("run", "a run of 1 images", -10)
        assert (await client.get("/health")).json()["status"] == "stuck"
        for path in ("/health/live", "/health/ready"):
            probe = await client.get(path)
            assert (probe.status_code, probe.json()["code"]) == (503, "stuck")
        services.watch.end(run)
        services.watch.end(load)
        assert (await client.get("/health/live")).status_code == 200
        await until(lambda: b'resnext_overdue_total{work="load"}' in services.metrics.render())


async def test_a_worker_that_is_silent_is_told(serve: Serve, tmp_path: Path) -> None:
    with Presence(tmp_path / "state/workers", "one").held(threading.Event(), 0):
        os.utime(tmp_path / "state/workers/one.json", (time.time() - 60,) * 2)
        async with serve() as (client, services):
            await services.jobs.open()
            trainer = (await client.get("/health")).json()["trainer"]
            assert "resnext_training_workers 0.0" in (await client.get("/metrics")).text
    assert trainer["error"].startswith(f"worker one, process {os.getpid()} on ")
    assert "has shown no sign of life for 6" in trainer["error"]


async def test_streams_are_shown(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, services):
        model = services.serving.deployment().model
        assert (await client.get("/health")).json()["model"]["streams"] is None
        runner = DirectRunner(open_session(network().SerializeToString(), "cpu", 1))
        measured = model.measured.model_copy(update={"crowd": Curve(seconds={1: 0.5, 2: 0.8}, batch=2)})
        services.serving.deployment().model = replace(model, streams=Streams(runner, 2), measured=measured)
        shown = (await client.get("/health")).json()["model"]["streams"]
    assert (shown["count"], shown["max_batch"]) == (2, 2)
    assert [point["images_per_second"] for point in shown["latency"]] == [4, 5]


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


async def test_rollback_is_shown_until_a_version_is_activated(serve: Serve, repository: ModelRepository) -> None:
    white = encoded(np.full((16, 16, 3), 255, np.uint8))
    publish(repository, 1)
    publish(repository, 2, model=network(2, blind=True), activate=False)
    async with serve(probation_images=10, probation_error_rate=0.1) as (client, services):
        await client.post("/models/2/activate")
        for _ in range(2):
            answer = await client.post("/predict", content=white)
            assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
        await until(lambda: services.serving.rollback is not None)
        answer = await client.post("/predict", content=white)
        assert (answer.status_code, answer.json()["model"]["version"]) == (200, 1)
        health = (await client.get("/health")).json()
        await client.post("/models/2/activate")
        later = (await client.get("/health")).json()
    assert (health["status"], health["model"]["version"], health["load_error"]) == ("ready", 1, None)
    assert (health["rollback"].pop("at") is not None, health["rollback"]) == (
        True,
        {
            "from_version": 2,
            "to_version": 1,
            "reason": "the model failed on 2 of the first 2 images after it went live",
        },
    )
    assert later["rollback"] is None


async def test_images_that_are_at_fault_themselves_are_not_counted(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve(probation_images=10, probation_error_rate=0) as (client, services):
        await client.post("/models/2/activate")
        for _ in range(3):
            assert (await client.post("/predict", content=b"no image")).status_code == 422
        await services.serving.refresh()
        health = (await client.get("/health")).json()
    assert (health["model"]["version"], health["rollback"]) == (2, None)


async def test_draining_is_not_ready_and_closes_connections(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, services):
        assert "connection" not in (await client.get("/health/ready")).headers
        services.drain.begin()
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert (await client.get("/health")).json()["status"] == "draining"
        assert (await client.get("/health/live")).status_code == 200
