import asyncio
import gc
import shutil
import weakref

import numpy as np
import pytest

from app.errors import NoModel, VersionLive, VersionNotFound, VersionUnusable
from app.rollout.rollback import RollbackPolicy
from tests.app.network import network, publish, random_images, reference
from tests.app.world import Loader, break_file, live_version, serving_of, until
from training.contract.manifest import MANIFEST_FILE
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio


async def test_first_publish_makes_it_ready_without_a_restart(repository: ModelRepository) -> None:
    async with serving_of(repository) as serving:
        await serving.refresh()
        with pytest.raises(NoModel, match="resnext train DIR"):
            serving.deployment()
        publish(repository)
        await until(lambda: serving.live is not None)
        assert serving.deployment().model.version == 1


async def test_follows_active_forward_and_back(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        publish(repository, 2)
        await until(lambda: live_version(serving) == 2)
        repository.activate(1)
        await until(lambda: live_version(serving) == 1)


async def test_published_and_not_active_is_not_served(repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serving_of(repository) as serving:
        await serving.refresh()
        assert live_version(serving) == 1


async def test_version_that_fails_keeps_the_old_one_and_is_tried_once(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, RollbackPolicy(enabled=False)) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish(repository, 2, activate=False)
        break_file(repository, bad)
        repository.activate(bad)
        await until(lambda: serving.failure is not None)
        for _ in range(3):
            await serving.refresh()
        assert load.loads == [1, 2]
        assert serving.live is not None
        assert live_version(serving) == 1
        assert serving.failure
        assert serving.failure.version == bad
        assert serving.failure.reason.startswith("resnext50/2/model.onnx should have SHA-256")

        repository.activate(1)  # back to what serves all the while
        await until(lambda: serving.failure is None)
        repository.activate(bad)
        await until(lambda: serving.failure is not None)
        await serving.activate(1)
        assert serving.failure is None
        assert load.loads == [1, 2, 2]

        publish(repository, 3)
        await until(lambda: live_version(serving) == 3)


async def test_failed_version_is_tried_again_once_it_changes(repository: ModelRepository) -> None:
    load = Loader(repository)
    version = publish(repository, 1)
    manifest = repository.path(version) / MANIFEST_FILE
    text = manifest.read_text()
    manifest.write_text("{")
    async with serving_of(repository, load) as serving:
        await until(lambda: serving.failure is not None)
        with pytest.raises(NoModel, match="not a valid manifest"):
            serving.deployment()
        manifest.write_text(text)
        await until(lambda: serving.live is not None)


async def test_active_that_is_nonsense_keeps_the_old_one(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        (repository.folder / "ACTIVE").write_text("seven")
        await until(lambda: serving.failure is not None)
        assert serving.failure
        assert "should hold a version number, it holds 'seven'" in serving.failure.reason
        assert live_version(serving) == 1
        (repository.folder / "ACTIVE").write_text("9")  # a version that is not there
        await until(lambda: serving.failure is not None and serving.failure.version == 9)
        assert live_version(serving) == 1


async def test_repository_that_disappears_keeps_the_old_one(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        shutil.rmtree(repository.folder)
        await serving.refresh()
        assert serving.live is not None


async def test_request_in_flight_finishes_on_the_version_it_began_with(repository: ModelRepository) -> None:
    image = random_images(1, seed=9)
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        with serving.deployment().lease() as begun:
            publish(repository, 2)
            await until(lambda: live_version(serving) == 2)
            answer = await begun.batcher.submit(image[0])
            new = await serving.deployment().batcher.submit(image[0])
        np.testing.assert_allclose(answer.probabilities, reference(network(1), image)[0], atol=1e-5)
        np.testing.assert_allclose(new.probabilities, reference(network(2), image)[0], atol=1e-5)


async def test_old_version_is_freed_with_its_last_request(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        with serving.deployment().lease() as old:
            model, batcher = weakref.ref(old.model), old.batcher
            publish(repository, 2)
            await until(lambda: live_version(serving) == 2)
            await old.batcher.submit(random_images(1)[0])
            gc.collect()
            assert model() is not None
        del old
        await asyncio.to_thread(batcher.join)
        del batcher
        gc.collect()
        assert model() is None


async def test_end_does_not_wait_for_a_request_that_never_ends(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with asyncio.timeout(30), serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        lease = serving.deployment().lease()
        lease.__enter__()
    assert serving.live is None


async def test_activate_loads_first_then_writes_active(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        load.gate.clear()
        activating = asyncio.create_task(serving.activate(2))
        await until(lambda: load.loads == [1, 2])
        assert (repository.active(), live_version(serving)) == (1, 1)
        load.gate.set()
        await activating
        assert (repository.active(), live_version(serving)) == (2, 2)


async def test_activate_of_a_bad_version_leaves_active_alone(repository: ModelRepository) -> None:
    publish(repository, 1)
    bad = publish(repository, 2, activate=False)
    break_file(repository, bad)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        with pytest.raises(VersionUnusable, match=r"version 2 cannot be served: .*SHA-256"):
            await serving.activate(bad)
        with pytest.raises(VersionNotFound, match="has no version 7, it has 1, 2"):
            await serving.activate(7)
        assert (repository.active(), live_version(serving)) == (1, 1)


async def test_concurrent_activations_come_one_after_the_other(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    for seed in (2, 3, 4):
        publish(repository, seed, activate=False)
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        load.gate.clear()
        tasks = [asyncio.create_task(serving.activate(version)) for version in (2, 3, 4)]
        await until(lambda: len(load.loads) == 2)
        load.gate.set()
        await asyncio.gather(*tasks)
        assert load.loads == [1, 2, 3, 4]
        assert (repository.active(), live_version(serving)) == (4, 4)


async def test_activate_of_the_live_version_loads_nothing(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        await serving.activate(1)
        assert load.loads == [1]


async def test_activate_loads_the_live_version_again_where_its_files_were_replaced(repository: ModelRepository) -> None:
    images = random_images(2, seed=9)
    load = Loader(repository)
    publish(repository, 1)
    other = repository.path(publish(repository, 2, activate=False))
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        shutil.rmtree(repository.path(1))
        shutil.copytree(other, repository.folder / "1")
        manifest = repository.manifest(2).model_copy(update={"version": 1})
        (repository.folder / "1" / MANIFEST_FILE).write_text(manifest.model_dump_json())
        await serving.activate(1)
        assert serving.live
        assert np.allclose(serving.live.model.run(images), reference(network(2), images), atol=1e-5)
        break_file(repository, 1)
        with pytest.raises(VersionUnusable, match="should have SHA-256"):
            await serving.activate(1)
        assert load.loads == [1, 1, 1]


async def test_delete(repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        with pytest.raises(VersionLive, match="version 1 serves requests"):
            await serving.delete(1)
        with pytest.raises(VersionNotFound):
            await serving.delete(3)
        await serving.delete(2)
        assert repository.versions() == [1]


async def test_active_version_is_not_deleted_though_another_one_serves(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository, policy=RollbackPolicy(enabled=False)) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish(repository, 2, activate=False)
        break_file(repository, bad)
        repository.activate(bad)
        with pytest.raises(VersionLive, match="version 2 of 'resnext50' is active"):
            await serving.delete(bad)


async def test_swaps_under_load_lose_nothing_and_each_answer_is_of_one_version(repository: ModelRepository) -> None:
    images = random_images(8, seed=9)
    seeds = {publish(repository, seed, activate=False): seed for seed in range(4)}
    expected = {version: reference(network(seed), images) for version, seed in seeds.items()}
    repository.activate(1)
    seen: set[int] = set()
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        swapping = True

        async def client(number: int) -> int:
            answered = 0
            while swapping:
                with serving.deployment().lease() as live:
                    await asyncio.sleep(0)  # a swap may come between the lease and the batcher
                    answer = await live.batcher.submit(images[number])
                np.testing.assert_allclose(answer.probabilities, expected[live.model.version][number], atol=1e-5)
                seen.add(live.model.version)
                answered += 1
            return answered

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for version in [2, 3, 4, 1, 3, 2, 4]:
            await serving.activate(version)
            await until(lambda version=version: version in seen)  # type: ignore[misc]  # mypy: a default makes two kinds of lambda
        swapping = False
        assert min(await asyncio.gather(*clients)) > 0
    assert seen == {1, 2, 3, 4}
