import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import DeadlineExceeded, NoValidImage, QueueFull
from app.inference.admission import Admission
from app.inference.batcher import Answer
from app.inference.deployment import Deployment
from app.inference.infer import Inference
from app.inference.statistics import Total
from app.observability.observation import CURRENT, Observation
from app.observability.timing import Timing
from tests.app.network import encoded, publish, random_images
from tests.app.world import live_version, serving_of, until
from training.contract.repository import ModelRepository
from training.environment import Limits
from training.images.decode import ImageError

pytestmark = pytest.mark.anyio

IMAGES = [encoded(image) for image in random_images(2)]
FOREVER = contextlib.nullcontext()


@pytest.fixture
def inference() -> Iterator[Inference]:
    with ThreadPoolExecutor(1) as decoders:
        yield Inference(Admission(4), decoders, Limits(max_pixels=10_000))


def begin_request() -> Observation:
    """Lets the test's task work for a request."""
    request = Observation("mine", 0)
    CURRENT.set(request)
    return request


@contextlib.asynccontextmanager
async def live_in(repository: ModelRepository) -> AsyncIterator[Deployment]:
    publish(repository)
    async with serving_of(repository) as serving:
        await until(lambda: live_version(serving) == 1)
        with serving.deployment().lease() as live:
            yield live


async def test_every_image_has_its_timing_and_the_request_the_longest(
    inference: Inference, repository: ModelRepository
) -> None:
    request = begin_request()
    async with live_in(repository) as live:
        outcomes = await inference.infer(IMAGES, live, FOREVER, partial=False)
        pixels = await inference.infer(list(random_images(1)), live, FOREVER, partial=False)
    timings = [outcome.timing for outcome in outcomes if isinstance(outcome, Answer)]
    assert len(timings) == 2
    assert all(min(timing.decode, timing.queue, timing.infer) > 0 for timing in timings)
    assert live.statistics.decode == Total(2, Timing.longest(timings).decode)  # the second request had none
    assert isinstance(pixels[0], Answer)
    assert sorted(request.timings, key=id) == sorted([*timings, pixels[0].timing], key=id)
    assert inference.admission.depth == 0


async def test_an_unusable_image_fails_itself_or_the_whole_request(
    inference: Inference, repository: ModelRepository
) -> None:
    images = [IMAGES[0], b"no image"]
    async with live_in(repository) as live:
        outcomes = await inference.infer(images, live, FOREVER, partial=True)
        with pytest.raises(NoValidImage, match="image 1 cannot be used, not_an_image: "):
            await inference.infer(images, live, FOREVER, partial=False)
    assert [type(outcome) for outcome in outcomes] == [Answer, ImageError]
    assert (live.statistics.success.count, live.statistics.fail.count) == (1, 1)


async def test_a_request_after_its_deadline_is_noted_as_expired(
    inference: Inference, repository: ModelRepository
) -> None:
    request = begin_request()

    @contextlib.asynccontextmanager
    async def passed() -> AsyncIterator[None]:
        raise DeadlineExceeded("no answer within 0 s")
        yield

    async with live_in(repository) as live:
        with pytest.raises(DeadlineExceeded):
            await inference.infer(IMAGES, live, passed(), partial=False)
    assert request.dropped == "expired"
    assert (live.statistics.fail.count, inference.admission.depth) == (1, 0)


async def test_a_request_without_a_place_is_noted_as_rejected(
    inference: Inference, repository: ModelRepository
) -> None:
    request = begin_request()
    async with live_in(repository) as live:
        with pytest.raises(QueueFull):
            await inference.infer(IMAGES * 3, live, FOREVER, partial=False)
    assert request.dropped == "rejected"
