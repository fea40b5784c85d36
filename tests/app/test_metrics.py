import pytest

from tests.app.conftest import Serve
from tests.app.network import network, publish
from tests.app.test_serving import break_file, until
from training.contract import ModelRepository

pytestmark = pytest.mark.anyio


async def test_what_a_scrape_shows(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serve() as (client, services):
        with services.admission.admit(3):
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
