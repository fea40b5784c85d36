import asyncio
import gc
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from app.errors import LoadTimedOut, NoModel, RolloutBusy, VersionLive, VersionNotFound, VersionUnusable
from app.rollout.rollback import RollbackPolicy
from app.watch import Watch
from tests.app.network import network, publish, random_images, reference
from tests.app.world import Loader, break_file, live_version, serving_of, until
from training.contract.manifest import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE
from training.contract.repository import ModelRepository
from training.errors import StorageUnavailable
from training.system.locks import exclusive

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


@pytest.mark.parametrize("nonsense", [b"\xff\n", b"1" * 4400, b"", b"0", b"1\x00", "\u0661".encode()], ids=range(6))
async def test_whatever_active_holds_it_is_followed_afterwards(repository: ModelRepository, nonsense: bytes) -> None:
    publish(repository, 1)
    active = repository.folder / "ACTIVE"
    active.write_bytes(nonsense)
    async with serving_of(repository) as serving:
        await until(lambda: serving.failure is not None)
        active.write_text("1\n")
        await until(lambda: live_version(serving) == 1)
        active.write_bytes(nonsense)
        await until(lambda: serving.failure is not None)
        publish(repository, 2, activate=False)
        active.write_text("2\n")
        await until(lambda: live_version(serving) == 2)
        assert serving.failure is None


async def test_active_that_is_a_named_pipe_does_not_hang(repository: ModelRepository) -> None:
    publish(repository, 1)
    (repository.folder / "ACTIVE").unlink()
    os.mkfifo(repository.folder / "ACTIVE")
    async with serving_of(repository) as serving:
        await until(lambda: serving.failure is not None)
        assert serving.failure
        assert "ACTIVE cannot be read: it should be a file, it is a named pipe" in serving.failure.reason


@pytest.mark.parametrize("name", [MODEL_FILE, GOLDEN_FILE, MANIFEST_FILE])
async def test_a_version_with_a_named_pipe_for_a_file_is_refused(repository: ModelRepository, name: str) -> None:
    publish(repository, 1)
    (repository.path(1) / name).unlink()
    os.mkfifo(repository.path(1) / name)
    async with serving_of(repository) as serving:
        with pytest.raises(
            VersionUnusable, match=f"resnext50/1/{name} cannot be read: it should be a file, it is a named pipe"
        ):
            await serving.activate(1)


async def test_a_load_that_hangs_is_given_up_and_the_second_one_is_the_versions_fault(
    repository: ModelRepository,
) -> None:
    load, watch = Loader(repository), Watch()
    publish(repository, 1)
    async with serving_of(repository, load, load_seconds=30, watch=watch) as serving:
        await until(lambda: live_version(serving) == 1)
        serving._loads.seconds = serving._loads._bounded.seconds = 0.3
        load.gate.clear()
        publish(repository, 2)
        await until(lambda: serving.failure is not None)
        assert serving.failure
        assert serving.failure.reason == "the load of version 2 has not ended in 0.3 s"
        assert repository.active() == 2  # the disk or the processors may be slow just now
        assert [late.what for late in watch.overdue()] == ["the load of version 2"]
        await until(lambda: serving.rollback is not None)
        assert repository.active() == 1
        assert load.loads == [1, 2, 2]
        with pytest.raises(LoadTimedOut, match=r"^version 2 cannot be loaded: the load of version 2 has not ended"):
            await serving.activate(2)
        with pytest.raises(LoadTimedOut, match="only a restart helps"):
            await serving.activate(2)
        load.gate.set()


async def test_active_that_is_set_back_during_a_load_that_hangs_is_followed(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, load_seconds=30) as serving:
        await until(lambda: live_version(serving) == 1)
        serving._loads.seconds = serving._loads._bounded.seconds = 0.3
        load.gate.clear()
        publish(repository, 2)
        await until(lambda: load.loads == [1, 2])
        (repository.folder / "ACTIVE").write_text("1\n")
        await until(lambda: serving.failure is not None)
        await until(lambda: serving.failure is None)
        assert (live_version(serving), repository.failures()) == (1, {})
        load.gate.set()


async def test_an_activation_waits_for_its_turn_for_a_bounded_time(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, load_seconds=0.3) as serving:
        async with serving._swapping:
            with pytest.raises(RolloutBusy) as caught:
                await serving.activate(1)
        assert caught.value.headers == {"Retry-After": "5"}


async def test_an_activation_does_not_wait_for_its_turn_at_the_end(repository: ModelRepository) -> None:
    closing = asyncio.Event()
    publish(repository, 1)
    async with serving_of(repository, closing=closing) as serving, serving._swapping:
        waiting = asyncio.create_task(serving.activate(1))
        await asyncio.sleep(0)
        closing.set()
        with pytest.raises(NoModel, match="the service is shutting down"):
            await waiting


async def test_a_lock_that_another_process_keeps_is_named(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path, "resnext50", lock_seconds=0.1)
    publish(repository, 1)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        publish(repository, 2, activate=False)
        expected = rf"^resnext50/\.lock has been held by process {os.getpid()} for more"
        with exclusive(repository.folder / ".lock"):
            for change in (serving.activate(1), serving.delete(2)):
                with pytest.raises(StorageUnavailable, match=expected):
                    await change


async def test_a_follower_that_looks_no_more_is_noticed(repository: ModelRepository) -> None:
    clock = [100.0]
    watch = Watch(clock=lambda: clock[0])
    async with serving_of(repository, watch=watch) as serving:
        await serving.settled.wait()
        serving._following.cancel()
        await asyncio.wait({serving._following})
        clock[0] += 31 + serving._loads.seconds * 2
        assert [late.kind for late in watch.overdue()] == ["follower"]
    assert watch.overdue() == []


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
