import asyncio
import errno
import os
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import InferenceFailed, LoadTimedOut, NoModel, RunTimedOut
from app.execution.model import Model
from app.execution.package import ModelError
from app.execution.session import Execution
from app.rollout.rollback import RollbackPolicy, is_momentary
from app.rollout.serving import Serving
from app.watch import Watch
from tests.app.network import network, publish, random_images, reference
from tests.app.world import Loader, break_file, live_version, serving_of, until
from training.contract.repository import ModelRepository, VersionMissing
from training.errors import ContractError
from training.system.locks import LockHeld

pytestmark = pytest.mark.anyio

WHITE = np.full((16, 16, 3), 255, np.uint8)
STRICT = RollbackPolicy(probation_images=20, error_rate=0.1)  # a third failure is one too many


def publish_broken(repository: ModelRepository, seed: int) -> int:
    version = publish(repository, seed, activate=False)
    break_file(repository, version)
    repository.activate(version)
    return version


async def classify(serving: Serving, image: NDArray[np.uint8]) -> bool:
    """Whether the model answered."""
    with serving.deployment().lease() as live:
        try:
            await live.classify(image)
        except InferenceFailed:
            return False
    return True


async def test_version_that_does_not_load_is_taken_back_and_the_live_one_stays(repository: ModelRepository) -> None:
    load = Loader(repository)
    for seed in (1, 2):
        publish(repository, seed)
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 2)
        deployment = serving.deployment()
        bad = publish_broken(repository, 3)
        await until(lambda: serving.rollback is not None)
        assert serving.deployment() is deployment
        assert load.loads == [2, 3]
    assert (repository.active(), repository.predecessors()) == (2, [1])
    assert "3/model.onnx should have SHA-256" in repository.failures()[bad].reason
    assert serving.rollback
    assert (serving.rollback.from_version, serving.rollback.to_version, serving.failure) == (3, 2, None)


async def test_activated_once_more_by_hand_it_is_tried_once_more(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish_broken(repository, 2)
        await until(lambda: repository.active() == 1)
        repository.activate(bad)
        await until(lambda: repository.active() == 1)
    assert load.loads == [1, 2, 2]


async def test_start_goes_back_to_the_nearest_version_that_works(repository: ModelRepository) -> None:
    for seed in (1, 2):
        publish(repository, seed)
    publish(repository, 3, activate=False)  # never live: nothing to go back to
    for seed in (4, 5):
        publish_broken(repository, seed)
    async with serving_of(repository) as serving:
        await until(lambda: serving.rollback is not None)
        assert live_version(serving) == 2
    assert (repository.active(), repository.predecessors()) == (2, [1])
    assert sorted(repository.failures()) == [4, 5]


async def test_start_with_nothing_that_works_changes_nothing(repository: ModelRepository) -> None:
    load = Loader(repository)
    for seed in (1, 2):
        publish_broken(repository, seed)
    async with serving_of(repository, load) as serving:
        await until(lambda: load.loads == [2, 1])
        for _ in range(3):
            await serving.refresh()
        with pytest.raises(NoModel, match=r"version 2 cannot be served: .*SHA-256"):
            serving.deployment()
        assert load.loads == [2, 1]
        assert (repository.active(), repository.failures(), serving.rollback) == (2, {}, None)


async def test_repository_that_cannot_be_written_is_served_from_an_earlier_version(
    repository: ModelRepository,
) -> None:
    load = Loader(repository)
    publish(repository, 1)
    bad = publish_broken(repository, 2)
    (repository.folder / ".HISTORY.tmp").mkdir()  # where the new file would be written
    async with serving_of(repository, load) as serving:
        await until(lambda: live_version(serving) == 1)
        for _ in range(3):
            await serving.refresh()
        assert load.loads == [2, 1]
        assert serving.failure
        assert serving.failure.version == bad
    assert repository.active() == bad


async def test_switched_off_the_live_one_stays_and_active_too(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository, policy=RollbackPolicy(enabled=False)) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish_broken(repository, 2)
        await until(lambda: serving.failure is not None)
        await serving.refresh()
        assert (repository.active(), live_version(serving), serving.rollback) == (bad, 1, None)


class Unlucky(Loader):
    """A load that first fails with each error of `bad_luck`, as a machine in trouble does."""

    def __init__(self, repository: ModelRepository) -> None:
        super().__init__(repository)
        self.bad_luck: Iterator[Exception] = iter(())

    def __call__(self, version: int) -> Model:
        if error := next(self.bad_luck, None):
            raise error
        return super().__call__(version)


@pytest.mark.parametrize("at_start", [True, False])
async def test_fault_of_the_moment_is_waited_for(repository: ModelRepository, at_start: bool) -> None:
    load = Unlucky(repository)
    for seed in (1, 2):
        publish(repository, seed, activate=at_start or seed == 1)
    faults = [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), MemoryError(), ModelError("std::bad_alloc")]
    load.bad_luck = iter(faults if at_start else [])
    async with serving_of(repository, load) as serving:
        if not at_start:
            await until(lambda: live_version(serving) == 1)
            load.bad_luck = iter(faults)
            repository.activate(2)
        await until(lambda: live_version(serving) == 2)
    assert (repository.failures(), serving.rollback, next(load.bad_luck, None)) == ({}, None, None)


async def test_active_that_is_in_sight_before_its_version_is_waited_for(repository: ModelRepository) -> None:
    publish(repository, 1)
    hidden = repository.folder.parent / "hidden"
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        shutil.move(repository.path(publish(repository, 2, activate=False)), hidden)
        (repository.folder / "ACTIVE").write_text("2")
        await until(lambda: serving.failure is not None)
        assert repository.active() == 2
        shutil.move(hidden, repository.folder / "2")
        await until(lambda: live_version(serving) == 2)


@pytest.mark.parametrize(
    ("error", "momentary"),
    [
        (OSError(errno.EACCES, "no"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (MemoryError(), True),
        (VersionMissing("not yet"), True),
        (LoadTimedOut("the load of version 2 has not ended"), True),
        (LockHeld("engines.lock has been held"), True),
        (RunTimedOut("a run of 1 images was ended"), False),
        (ModelError("CUDA failure 2: out of memory"), True),
        (FileNotFoundError(errno.ENOENT, "model.onnx"), False),
        (OSError("not an array"), False),
        (ContractError("SHA-256"), False),
        (ModelError("golden check"), False),
    ],
)
def test_is_momentary(error: Exception, momentary: bool) -> None:
    wrapped = ModelError("cannot be opened")
    wrapped.__cause__ = error
    assert [is_momentary(error), is_momentary(wrapped)] == [momentary, momentary]


@pytest.mark.parametrize("fault", ["fragile", "blind"])
async def test_version_that_fails_on_images_is_taken_back(repository: ModelRepository, fault: str) -> None:
    """Its golden images are fine: only traffic shows the fault."""
    publish(repository, 1)
    async with serving_of(repository, policy=STRICT) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish(repository, 2, model=network(2, fragile=fault == "fragile", blind=fault == "blind"))
        await until(lambda: live_version(serving) == bad)
        dark = random_images(1)[0]
        outcomes = [await classify(serving, image) for image in (dark, WHITE, dark, WHITE)]
        assert outcomes == [True, False, True, False]
        assert live_version(serving) == bad
        assert not await classify(serving, WHITE)
        await until(lambda: live_version(serving) == 1)
        assert serving.deployment().probation is None  # it has served before
        assert await classify(serving, WHITE)
        for _ in range(3):
            await serving.refresh()
        assert live_version(serving) == 1
    assert (repository.active(), list(repository.failures())) == (1, [bad])
    assert repository.failures()[bad].reason == "the model failed on 3 of the first 5 images after it went live"


async def test_version_whose_run_hangs_is_taken_back_at_once(repository: ModelRepository) -> None:
    watch = Watch()
    load = Loader(repository, Execution(watch=watch, run_seconds=0.2))
    publish(repository, 1)
    with watch.watching():
        async with serving_of(repository, load, STRICT, watch=watch) as serving:
            await until(lambda: live_version(serving) == 1)
            bad = publish(repository, 2, model=network(2, endless=True))
            await until(lambda: live_version(serving) == bad)
            with pytest.raises(TimeoutError):  # the client's patience ends before the run: it counts all the same
                await asyncio.wait_for(classify(serving, WHITE), 0.05)
            await until(lambda: live_version(serving) == 1)
            assert await classify(serving, WHITE)
    assert repository.active() == 1
    assert repository.failures()[bad].reason == "a run of 1 images was ended after 0.2 s"


async def test_active_is_set_back_for_the_next_process_from_a_version_on_probation(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository, policy=STRICT) as serving:
        await until(lambda: live_version(serving) == 1)
        serving.set_back("it hangs")  # it has proven itself, or nobody knows a better one
        assert repository.failures() == {}
        publish(repository, 2)
        await until(lambda: live_version(serving) == 2)
        serving.set_back("it hangs")
        assert (repository.active(), repository.failures()[2].reason) == (1, "it hangs")


async def test_active_is_set_back_for_the_next_process_from_a_version_under_load(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, STRICT) as serving:
        await until(lambda: live_version(serving) == 1)
        load.gate.clear()
        publish(repository, 2)
        await until(lambda: load.loads == [1, 2])
        serving.set_back("it hangs")
        assert (repository.active(), repository.failures()[2].reason) == (1, "it hangs")
        load.gate.set()


async def test_nobody_but_the_failed_images_notices(repository: ModelRepository) -> None:
    """Clients send good images all the while, and each answer is that of one version."""
    images = random_images(6, seed=9)
    publish(repository, 1)
    expected = {1: reference(network(1), images), 2: reference(network(2), images)}
    async with serving_of(repository, policy=STRICT) as serving:
        await until(lambda: live_version(serving) == 1)
        publish(repository, 2, model=network(2, fragile=True), activate=False)
        running = True

        async def client(number: int) -> set[int]:
            seen = set()
            while running:
                with serving.deployment().lease() as live:
                    await asyncio.sleep(0)
                    answer = await live.classify(images[number])
                wanted = expected[live.model.version][number]
                np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
                seen.add(live.model.version)
            return seen

        await serving.activate(2)
        # before the clients: a batch fails as a whole, and the test is about the swap
        assert [await classify(serving, WHITE) for _ in range(2)] == [False, False]
        clients = [asyncio.create_task(client(number)) for number in range(6)]
        await asyncio.sleep(0)
        deployment = serving.deployment()
        assert deployment.probation
        deployment.probation.count(failed=True)
        await until(lambda: live_version(serving) == 1)
        running = False
        assert set.union(*await asyncio.gather(*clients)) <= {1, 2}


async def test_version_at_the_start_is_not_on_probation(repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, model=network(2, fragile=True))
    async with serving_of(repository, policy=STRICT) as serving:
        await until(lambda: live_version(serving) == 2)
        assert not any([await classify(serving, WHITE) for _ in range(5)])
        await serving.refresh()
        assert (live_version(serving), serving.deployment().probation) == (2, None)


async def fragile_takes_over(repository: ModelRepository, serving: Serving) -> int:
    """Lets version 1 go live, then one that fails on bright images; returns the number of the second."""
    await until(lambda: live_version(serving) == 1)
    bad = publish(repository, 2, model=network(2, fragile=True))
    await until(lambda: live_version(serving) == bad)
    return bad


async def test_without_a_way_back_it_serves_on(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, STRICT) as serving:
        bad = await fragile_takes_over(repository, serving)
        break_file(repository, 1)
        for _ in range(3):
            await classify(serving, WHITE)
        await until(lambda: load.loads == [1, 2, 1])
        await serving.refresh()
        assert await classify(serving, random_images(1)[0])
    assert (repository.active(), repository.failures()) == (bad, {})


async def test_way_back_that_is_barred_for_a_moment_is_taken_at_the_next_failures(repository: ModelRepository) -> None:
    load = Unlucky(repository)
    publish(repository, 1)
    async with serving_of(repository, load, STRICT) as serving:
        bad = await fragile_takes_over(repository, serving)
        load.bad_luck = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
        for _ in range(3):
            await classify(serving, WHITE)
        await until(lambda: b"resnext_load_failures_total 1.0" in serving.metrics.render())
        await serving.refresh()  # waits for what is under way
        assert live_version(serving) == bad
        for _ in range(3):
            assert not await classify(serving, WHITE)
        await until(lambda: live_version(serving) == 1)


async def test_failing_version_is_left_for_good_where_active_cannot_be_written(repository: ModelRepository) -> None:
    load = Loader(repository)
    publish(repository, 1)
    async with serving_of(repository, load, STRICT) as serving:
        bad = await fragile_takes_over(repository, serving)
        (repository.folder / ".HISTORY.tmp").mkdir()
        for _ in range(3):
            await classify(serving, WHITE)
        await until(lambda: live_version(serving) == 1)
        for _ in range(3):
            await serving.refresh()
        assert (load.loads, live_version(serving), repository.active()) == ([1, 2, 1], 1, bad)


async def test_activation_by_hand_clears_the_notice(repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serving_of(repository, policy=STRICT) as serving:
        await until(lambda: live_version(serving) == 1)
        bad = publish_broken(repository, 2)
        await until(lambda: serving.rollback is not None)
        with (repository.path(bad) / "model.onnx").open("ab") as file:
            file.truncate(file.tell() - 1)  # mended
        await serving.activate(bad)
        assert (serving.rollback, repository.failures(), live_version(serving)) == (None, {}, bad)
