import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.inference.batcher import Answer, Batcher, Task, next_task
from app.observability.observation import CURRENT, Batch, Observation
from app.observability.timing import Decoding
from tests.process import until
from training.images.decode import ImageError

pytestmark = pytest.mark.anyio

SHAPE = (2, 2, 3)


def image(value: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, value, np.uint8)


class Network:
    """A model that answers [first pixel, 2 * first pixel]. Each run waits for the gate; a 255 in the batch fails it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.once = threading.Event()  # lets one run through the gate
        self.running = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.rows: list[int] = []
        self.alone: list[bool] = []

    def run(self, images: NDArray[np.uint8], alone: bool = True) -> NDArray[np.float32]:
        self.alone.append(alone)
        values = images[:, 0, 0, 0].astype(np.float32)
        self.rows.append(len(images))
        self.batches.append([int(value) for value in values])
        self.running.release()
        until(lambda: self.gate.is_set() or self.once.is_set())
        self.once.clear()
        if 255 in values:
            raise RuntimeError("broken kernel")
        return np.stack([values, 2 * values], axis=1)

    async def started(self) -> None:
        """Waits until one more run has begun."""
        assert await asyncio.to_thread(self.running.acquire, timeout=30)


@contextmanager
def batcher_of(network: Network, max_batch: int = 4, **options: object) -> Iterator[Batcher]:
    batcher = Batcher(network.run, SHAPE, max_batch, **options)  # type: ignore[arg-type]  # pad and delay
    try:
        yield batcher
    finally:
        network.gate.set()
        batcher.close()
        batcher.join()


async def submit_all(batcher: Batcher, values: list[int]) -> list[asyncio.Task[object]]:
    """Returns a task for each value; all have put their image into the queue, in order."""
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(_first(batcher, value)) for value in values]
    await asyncio.sleep(0)  # one round of the loop: each runs up to its wait
    return tasks


async def _first(batcher: Batcher, value: int) -> object:
    async with asyncio.timeout(30):  # a thread that died answers nobody
        return float((await batcher.submit(image(value))).probabilities[0])


@pytest.mark.parametrize(
    ("queued", "encoded", "decoding", "running", "alone", "expected"),
    [
        # two streams, each with batches of up to three images
        (0, 0, 0, 0, False, None),
        (0, 0, 1, 0, False, None),  # another thread decodes it
        (0, 1, 0, 0, False, "decode"),
        (2, 1, 0, 0, False, "decode"),  # not yet enough for a batch
        (3, 1, 0, 0, False, "crowd"),  # enough: the rest is decoded after it
        (3, 1, 0, 2, False, "decode"),  # enough, and no stream is free
        (3, 1, 0, 1, True, "decode"),
        (1, 0, 0, 0, False, "alone"),
        (1, 0, 0, 1, True, None),  # all cores are taken
        (1, 0, 0, 1, False, "crowd"),
        (1, 0, 0, 2, False, None),
        (2, 0, 0, 0, False, "crowd"),
        (1, 0, 1, 0, False, "crowd"),  # the one that is being decoded counts
        (4, 2, 2, 0, False, "crowd"),
    ],
)
def test_next_task_of_a_thread(
    queued: int, encoded: int, decoding: int, running: int, alone: bool, expected: Task | None
) -> None:
    assert next_task(queued, encoded, decoding, running, alone, streams=2, stream_batch=3) == expected


@pytest.mark.parametrize(
    ("queued", "encoded", "running", "expected"),
    [(1, 0, 0, "alone"), (9, 0, 0, "alone"), (9, 9, 0, "alone"), (0, 1, 0, "decode"), (9, 9, 1, "decode")],
)
def test_one_stream_runs_every_batch_on_all_cores(queued: int, encoded: int, running: int, expected: Task) -> None:
    assert next_task(queued, encoded, 0, running, running > 0, streams=1, stream_batch=1) == expected


async def test_idle_model_runs_at_once_and_what_gathers_meanwhile_is_the_next_batch() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4, 5, 6])
        network.gate.set()
        assert await asyncio.gather(*first, *rest) == [1, 2, 3, 4, 5, 6]
    assert network.batches == [[1], [2, 3, 4, 5], [6]]


async def test_answer_says_where_the_time_went() -> None:
    network = Network()
    asked = time.perf_counter()
    with batcher_of(network) as batcher:
        running = asyncio.create_task(batcher.submit(image(7)))
        await network.started()
        waiting = asyncio.create_task(batcher.submit(image(8)))
        await asyncio.sleep(0)
        queued = time.perf_counter()
        await asyncio.to_thread(lambda: None)  # some time
        opened = time.perf_counter()
        network.gate.set()
        first, second = await asyncio.gather(running, waiting)
        answered = time.perf_counter()
    assert second.probabilities.tolist() == [8, 16]
    assert first.timing.infer >= opened - queued
    assert second.timing.queue >= opened - queued
    assert second.timing.queue + second.timing.infer <= answered - asked
    assert first.timing.decode == second.timing.decode == 0


async def test_failed_run_reaches_all_who_wait_for_it_and_the_next_batch_runs() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 255, 4, 5, 6])
        network.gate.set()
        assert await asyncio.gather(*first) == [1]
        outcomes = await asyncio.gather(*rest, return_exceptions=True)
    assert [isinstance(o, InferenceFailed) for o in outcomes] == [True, True, True, True, False]
    assert outcomes[4] == 6
    assert "batch of 4: RuntimeError" in str(outcomes[0])
    assert len({id(o) for o in outcomes}) == 5  # an exception each


async def test_too_few_rows_is_a_failed_run() -> None:
    batcher = Batcher(lambda images, _: np.zeros((len(images) - 1, 2), np.float32), SHAPE, 4)
    with pytest.raises(InferenceFailed):
        await asyncio.wait_for(batcher.submit(image(1)), 30)
    batcher.close()


async def test_cancelled_image_is_dropped_before_it_runs_and_harms_no_other() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4])
        rest[1].cancel()
        await asyncio.gather(rest[1], return_exceptions=True)
        network.gate.set()
        assert await asyncio.gather(*first, rest[0], rest[2]) == [1, 2, 4]
    assert network.batches == [[1], [2, 4]]


async def test_deadline_drops_the_queued_image() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await batcher.submit(image(2))
        network.gate.set()
        assert await asyncio.gather(*first) == [1]
        assert await _first(batcher, 3) == 3
    assert network.batches == [[1], [3]]


async def test_cancelled_while_it_runs_harms_no_other() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        both = await submit_all(batcher, [1])
        await network.started()
        both[0].cancel()
        network.gate.set()
        assert await _first(batcher, 2) == 2


async def test_all_cancelled_leaves_a_batcher_that_works() -> None:
    network = Network()
    with batcher_of(network) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3])
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        network.gate.set()
        await asyncio.gather(*first)
        assert await _first(batcher, 4) == 4
    assert network.batches == [[1], [4]]


async def test_padding_runs_more_rows_and_answers_only_the_images() -> None:
    network = Network()
    network.gate.set()
    with batcher_of(network, 8, pad=lambda n: 8 if n > 1 else 1) as batcher:
        network.gate.clear()
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4])
        network.gate.set()
        assert await asyncio.gather(*first, *rest) == [1, 2, 3, 4]
    assert network.rows == [1, 8]


async def test_delay_waits_for_a_full_batch_and_no_longer() -> None:
    network = Network()
    network.gate.set()
    with batcher_of(network, 3, delay=3600) as batcher:
        assert await asyncio.gather(*await submit_all(batcher, [1, 2, 3])) == [1, 2, 3]
        batcher.close()  # ends a wait too
    with batcher_of(network, 3, delay=0.01) as batcher:
        assert await _first(batcher, 4) == 4
    assert network.batches == [[1, 2, 3], [4]]


@pytest.mark.parametrize("streams", [1, 2])
async def test_images_are_decoded_while_others_wait_for_a_full_batch(streams: int) -> None:
    network = Network()
    network.gate.set()
    with batcher_of(network, 3, delay=3600, streams=streams, stream_batch=3) as batcher:
        tasks = []
        for value in (1, 2, 3):  # each comes when the one before has been decoded, and no thread has anything to do
            decoded = threading.Event()

            def decode(value: int = value, decoded: threading.Event = decoded) -> NDArray[np.uint8]:
                decoded.set()
                return image(value)

            tasks.append(asyncio.create_task(batcher.submit(decode)))
            assert await asyncio.to_thread(decoded.wait, 30)
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*tasks)
    assert [float(answer.probabilities[0]) for answer in answers] == [1, 2, 3]
    assert sorted(value for batch in network.batches for value in batch) == [1, 2, 3]
    assert len(network.batches) == streams  # as many images as there are streams are shared among them


async def test_close_answers_what_is_queued_and_takes_no_more() -> None:
    network = Network()
    with batcher_of(network, 1) as batcher:
        tasks = await submit_all(batcher, [1, 2])
        batcher.close()
        network.gate.set()
        assert await asyncio.gather(*tasks) == [1, 2]
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.submit(image(3))


async def test_streams_run_one_image_each_as_soon_as_enough_wait_for_all_of_them() -> None:
    network = Network()
    with batcher_of(network, streams=2) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4])
        assert network.batches == [[1]]  # it runs alone: the other stream waits
        network.gate.set()
        assert await asyncio.gather(*first, *rest) == [1, 2, 3, 4]
    assert sorted(network.batches) == [[1], [2], [3], [4]]
    assert network.alone[:2] == [True, False]


async def test_streams_run_side_by_side() -> None:
    network = Network()
    with batcher_of(network, streams=2) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4])
        network.once.set()
        assert await asyncio.gather(*first) == [1]
        for _ in range(2):
            await network.started()  # both, with the gate closed
        assert [sorted(network.batches[1:3]), network.alone[1:]] == [[[2], [3]], [False, False]]
        network.gate.set()
        assert await asyncio.gather(*rest) == [2, 3, 4]


async def test_streams_share_what_waits() -> None:
    network = Network()
    with batcher_of(network, streams=2, stream_batch=3) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4, 5])
        network.once.set()
        for _ in range(2):
            await network.started()  # both, with the gate closed
        assert sorted(network.batches) == [[1], [2, 3], [4, 5]]
        network.gate.set()
        assert await asyncio.gather(*first, *rest) == [1, 2, 3, 4, 5]


async def test_fewer_than_the_streams_are_one_batch() -> None:
    network = Network()
    with batcher_of(network, streams=3) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3])
        network.gate.set()
        assert await asyncio.gather(*first, *rest) == [1, 2, 3]
    assert network.batches == [[1], [2, 3]]
    assert network.alone == [True, True]


class Encoded:
    """An image that is decoded once the gate is open; 254 is none."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.gate = threading.Event()
        self.begun = threading.Event()

    def __call__(self) -> NDArray[np.uint8]:
        self.begun.set()
        assert self.gate.wait(30)
        if self.value == 254:
            raise ImageError("corrupt_image", "no image")
        return image(self.value)


async def ask(batcher: Batcher, images: list[Encoded]) -> list[asyncio.Task[Answer]]:
    tasks = [asyncio.create_task(batcher.submit(each)) for each in images]
    await asyncio.sleep(0)
    return tasks


async def test_an_image_is_decoded_while_another_runs() -> None:
    network, second = Network(), Encoded(2)
    with batcher_of(network, streams=2) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        (asked,) = await ask(batcher, [second])
        assert await asyncio.to_thread(second.begun.wait, 30)
        begun = time.perf_counter()
        await asyncio.to_thread(lambda: None)  # some time
        opened = time.perf_counter()
        second.gate.set()
        network.gate.set()
        answer = await asked
        await asyncio.gather(*first)
    assert answer.probabilities.tolist() == [2, 4]
    assert answer.timing.decode >= opened - begun
    assert answer.timing.queue > 0


async def test_a_wait_for_a_decoder_elsewhere_is_part_of_the_queue() -> None:
    network = Network()
    network.gate.set()
    with batcher_of(network) as batcher:
        answer = await batcher.submit(image(1), Decoding(waited=100, begun=0, seconds=20))
    assert answer.timing.decode == 20
    assert 100 < answer.timing.queue < 130


async def test_what_is_no_image_harms_no_other() -> None:
    network, images = Network(), [Encoded(1), Encoded(254), Encoded(3)]
    network.gate.set()
    for each in images:
        each.gate.set()
    with batcher_of(network, streams=2, stream_batch=3) as batcher:
        outcomes = await asyncio.gather(*await ask(batcher, images), return_exceptions=True)
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], ImageError)
    assert 254 not in [value for batch in network.batches for value in batch]


async def test_what_waits_is_decoded_before_it_runs_in_one_batch() -> None:
    network, images = Network(), [Encoded(value) for value in (4, 5, 6)]
    for each in images:
        each.gate.set()
    with batcher_of(network, streams=2, stream_batch=3) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3])
        network.once.set()
        for _ in range(2):
            await network.started()  # a run in each stream
        asked = await ask(batcher, images)
        network.once.set()
        await network.started()
        assert network.batches[3] == [4, 5, 6]
        network.gate.set()
        await asyncio.gather(*first, *rest, *asked)


async def test_what_is_being_decoded_counts_as_waiting() -> None:
    """A run on all cores would share them with the thread that decodes."""
    network, other = Network(), Encoded(2)
    network.gate.set()
    with batcher_of(network, streams=2) as batcher:
        (asked,) = await ask(batcher, [other])
        assert await asyncio.to_thread(other.begun.wait, 30)
        assert await _first(batcher, 1) == 1
        assert network.alone == [False]
        other.gate.set()
        await asked


async def test_a_client_that_left_costs_no_decoding() -> None:
    network, left = Network(), Encoded(2)
    with batcher_of(network, streams=1) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        (asked,) = await ask(batcher, [left])
        asked.cancel()
        network.gate.set()
        await asyncio.gather(*first)
    assert not left.begun.is_set()


@pytest.mark.parametrize("seed", range(5))
async def test_each_client_gets_its_own_answer(seed: int) -> None:
    """Random clients, batch sizes, cancellations and padding: each answer is that of a run with this image alone."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(12, 5)).astype(np.float32)

    def run(images: NDArray[np.uint8], alone: bool = True) -> NDArray[np.float32]:
        assert alone or len(images) <= 2
        output: NDArray[np.float32] = images.reshape(len(images), 12).astype(np.float32) @ weights
        return output

    most, streams, each = (int(random.integers(1, high)) for high in (9, 4, 3))
    batcher = Batcher(run, SHAPE, most, streams=streams, stream_batch=each)
    images = random.integers(0, 256, (200, *SHAPE), np.uint8)
    cancelled = set(random.choice(200, 40, replace=False).tolist())

    async def client(numbers: list[int]) -> None:
        for number in numbers:
            pixels = images[number]
            task = asyncio.create_task(batcher.submit(pixels if number % 2 else pixels.copy))
            if number in cancelled:
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                answer = await task
                np.testing.assert_allclose(
                    answer.probabilities, run(images[number : number + 1])[0], rtol=1e-5, atol=1e-2
                )

    order = random.permutation(200).tolist()
    async with asyncio.timeout(30):
        await asyncio.gather(*(client(order[i::16]) for i in range(16)))
    batcher.close()


@pytest.mark.parametrize(("delay", "closed"), [(0.0, ["idle", "full", "idle"]), (0.01, ["delay", "full", "delay"])])
async def test_each_batch_says_its_size_and_why_it_was_no_larger(delay: float, closed: list[str]) -> None:
    network, seen = Network(), list[Batch]()
    with batcher_of(network, delay=delay, observe=seen.append) as batcher:
        first = await submit_all(batcher, [1])
        await network.started()
        rest = await submit_all(batcher, [2, 3, 4, 5, 6])
        network.gate.set()
        await asyncio.gather(*first, *rest)
    assert [batch.closed for batch in seen] == closed
    assert [batch.images for batch in seen] == [1, 4, 1]
    assert not any(batch.failed for batch in seen)
    assert all(batch.seconds > 0 for batch in seen)


async def test_a_batch_that_failed_says_so_and_whose_images_were_in_it() -> None:
    network, seen = Network(), list[Batch]()
    network.gate.set()
    request = Observation("mine", 0)
    CURRENT.set(request)
    with batcher_of(network, observe=seen.append) as batcher, pytest.raises(InferenceFailed):
        await batcher.submit(image(255))
    assert (seen[0].failed, [image.request for image in seen[0].queued]) == (True, [request])
