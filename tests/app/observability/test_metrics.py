import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from app.api.middleware.observer import Observer
from app.api.middleware.shortcut import Shortcut
from app.observability.metrics import Metrics
from app.observability.observation import Batch
from app.observability.requests import Requests
from tests.app.conftest import Serve
from tests.app.network import SIZE, encoded, network, publish, random_images
from tests.app.world import break_file, until, value
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio


async def test_what_a_scrape_shows(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serve() as (client, services):
        with services.inference.admission.admit(3):
            answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        first = answer.text.splitlines()
        publish(repository, 2)
        break_file(repository, publish(repository, 3, activate=False))
        await services.serving.refresh()
        repository.activate(3)
        await services.serving.refresh()
        second = (await client.get("/metrics")).text.splitlines()
    model = 'resnext_model_info{model="resnext50",precision="fp32",provider="CPUExecutionProvider",version="%d"} 1.0'
    assert model % 1 in first
    assert "resnext_queue_images 3.0" in first
    assert 'resnext_rollbacks_total{reason="errors"} 0.0' in first
    assert {"resnext_swaps_total 0.0", "resnext_load_failures_total 0.0"} <= set(first)
    assert {model % 2, "resnext_queue_images 0.0", "resnext_swaps_total 1.0"} <= set(second)
    assert {'resnext_rollbacks_total{reason="load"} 1.0', "resnext_load_failures_total 1.0"} <= set(second)
    assert model % 1 not in second


async def test_two_apps_count_apart(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serve() as (_, one), serve() as (_, other):
        one.metrics.swaps.inc()
        assert b"resnext_swaps_total 1.0" in one.metrics.render()
        assert b"resnext_swaps_total 0.0" in other.metrics.render()


async def test_failures_of_images_are_told_apart(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serve(probation_images=10, probation_error_rate=0) as (_, services):
        publish(repository, 2, model=network(2, fragile=True))
        await services.serving.refresh()
        probation = services.serving.deployment().probation
        assert probation
        probation.count(failed=True)
        await until(lambda: services.serving.rollback is not None)
        assert b'resnext_rollbacks_total{reason="errors"} 1.0' in services.metrics.render()


async def test_scrape_needs_a_key_where_there_are_keys(serve: Serve) -> None:
    async with serve(api_keys="secret") as (client, _):
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer secret"})).status_code == 200


async def test_a_request_is_counted_with_its_route_its_version_and_its_stages(
    serve: Serve, repository: ModelRepository
) -> None:
    publish(repository, 1)
    image = encoded(random_images(1)[0])
    async with serve(max_batch=4) as (client, _):
        assert (await client.post("/predict", content=image)).status_code == 200
        assert (await client.post("/predict", content=b"no image")).status_code == 422
        assert (await client.get("/models/1")).status_code == 200
        assert (await client.get("/models/2")).status_code == 404
        assert (await client.request("BREW", "/tea")).status_code == 404
        text = (await client.get("/metrics")).text
    count = 'resnext_requests_total{method="%s",route="%s",status="%d",version="%s"}'
    assert value(text, count % ("POST", "/predict", 200, "1")) == 1
    assert value(text, count % ("POST", "/predict", 422, "1")) == 1
    assert value(text, count % ("GET", "/models/{version}", 200, "")) == 1
    assert value(text, count % ("GET", "/models/{version}", 404, "")) == 1
    assert value(text, count % ("other", "other", 404, "")) == 1
    assert value(text, 'resnext_request_seconds_count{method="POST",route="/predict"}') == 1
    for stage in ("receive", "decode", "queue", "infer"):
        assert value(text, f'resnext_stage_seconds_count{{stage="{stage}"}}') == 1
        assert 0 < value(text, f'resnext_stage_seconds_sum{{stage="{stage}"}}') < 30
    assert value(text, "resnext_images_total") == 1
    assert value(text, 'resnext_batch_images_count{closed="idle"}') == 1
    assert value(text, "resnext_queue_limit_images") == 256


async def test_latencies_from_one_millisecond_to_ten_seconds_have_buckets() -> None:
    text = Metrics().render().decode()
    bounds = re.findall(r'resnext_stage_seconds_bucket{le="(.+?)",stage="infer"}', text)
    assert (float(bounds[0]), float(bounds[-2]), bounds[-1]) == (0.001, 10, "+Inf")


async def test_what_is_not_answered_is_counted_by_its_reason(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1, model=network(1, slow=True))
    image = encoded(random_images(1)[0])
    reasons = 'resnext_requests_dropped_total{reason="%s"}'
    async with serve(queue_size=1, max_files=1, request_timeout=0.001) as (client, services):
        with services.inference.admission.admit(1):
            assert (await client.post("/predict", content=image)).status_code == 503
        assert (await client.post("/predict", content=image)).status_code == 504
        text = (await client.get("/metrics")).text
    assert [value(text, reasons % reason) for reason in ("rejected", "expired", "cancelled")] == [1, 1, 0]


async def nothing(*_: object) -> None:
    raise AssertionError("it should have gone the short way")


async def test_a_client_that_left_counts_as_cancelled() -> None:
    messages: list[Message] = [{"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    async def endpoint(request: Request) -> Response:
        return Response(await request.body())

    metrics = Metrics()
    middleware = Observer(Shortcut(nothing, {"/predict": endpoint}), Requests(metrics), ["/predict"])
    await middleware({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive, send)
    text = metrics.render().decode()
    assert sent[0]["status"] == 499
    assert value(text, 'resnext_requests_dropped_total{reason="cancelled"}') == 1


async def test_images_of_a_run_that_failed_are_counted_apart(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1, model=network(1, fragile=True))
    white = encoded(np.full((SIZE, SIZE, 3), 255, np.uint8))
    async with serve() as (client, _):
        assert (await client.post("/predict", content=white)).status_code == 500
        text = (await client.get("/metrics")).text
    assert (value(text, "resnext_images_total"), value(text, "resnext_images_failed_total")) == (0, 1)


async def test_batches_of_several_streams_are_all_counted_also_in_the_course_of_a_scrape() -> None:
    metrics = Metrics()
    ran = [Batch(3, "idle", 0.0, 0.1, failed, []) for failed in (False, True)] * 20_000

    def run() -> None:
        for batch in ran:
            metrics.count_batch(batch)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: threads change places as often as they can
    try:
        with ThreadPoolExecutor(4) as threads:
            done = [threads.submit(run) for _ in range(4)]
            while not all(future.done() for future in done):
                metrics.render()
    finally:
        sys.setswitchinterval(before)
    text = metrics.render().decode()
    assert (value(text, "resnext_images_total"), value(text, "resnext_images_failed_total")) == (240_000, 240_000)
    assert value(text, 'resnext_batch_images_count{closed="idle"}') == 160_000


async def test_memory_and_cpu_time_of_the_process_are_shown(serve: Serve) -> None:
    async with serve() as (client, _):
        text = (await client.get("/metrics")).text
    assert value(text, f'resnext_process_memory_bytes{{pid="{os.getpid()}"}}') > 20e6
    assert value(text, f'resnext_process_cpu_seconds_total{{pid="{os.getpid()}"}}') > 0
