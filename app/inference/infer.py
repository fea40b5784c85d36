"""The hot path behind every protocol: admission, deadline, decode in threads, batcher."""

import asyncio
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, NoValidImage
from app.inference.admission import Admission
from app.inference.batcher import Decode, timed
from app.inference.deployment import Deployment
from app.inference.statistics import Stages
from app.observability.metrics import Metrics
from app.observability.observation import CURRENT, Decoding
from training.images.decode import ImageError, decode


@dataclass(frozen=True, slots=True)
class Outcome(Stages):
    """One image's probabilities, float32 [classes], and where its time went."""

    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Inference:
    """What every request passes: `admission` bounds the queue, `decoders` decode where a model's own threads do not.

    `max_pixels` is the largest image that is decoded, width times height.
    """

    admission: Admission
    decoders: ThreadPoolExecutor
    metrics: Metrics
    max_pixels: int

    async def infer(
        self,
        images: Sequence[bytes | NDArray[np.uint8]],
        live: Deployment,
        until: AbstractAsyncContextManager[None],
        *,
        partial: bool,
    ) -> list[Outcome | ImageError]:
        """Returns an outcome for each image, which is encoded or pixels of the model's shape.

        The caller holds a lease on `live`. `until` cancels what takes too long. With `partial=False` the
        first unusable image fails the whole request. Raises NoValidImage for that; QueueFull, InferenceFailed, what
        `until` raises.
        """
        begun = time.perf_counter()
        try:
            with self.admission.admit(len(images)):
                async with until:
                    found = await asyncio.gather(
                        *(self._classify(image, live) for image in images), return_exceptions=True
                    )
            outcomes: list[Outcome | ImageError] = []
            for position, outcome in enumerate(found):
                if isinstance(outcome, ImageError):
                    if not partial:
                        raise NoValidImage(f"image {position} can not be used, {outcome.code}: {outcome.message}")
                elif isinstance(outcome, BaseException):
                    raise outcome
                outcomes.append(outcome)
        except BaseException as error:  # a cancelled one has failed, too
            live.statistics.failed(time.perf_counter() - begun)
            if isinstance(error, DeadlineExceeded):  # here: protocols have statuses of their own for it
                self.metrics.expired.inc()
            raise
        if done := [outcome for outcome in outcomes if isinstance(outcome, Outcome)]:
            live.statistics.succeeded(done, time.perf_counter() - begun)
        else:
            live.statistics.failed(time.perf_counter() - begun)
        return outcomes

    async def _classify(self, image: bytes | NDArray[np.uint8], live: Deployment) -> Outcome:
        """Raises ImageError, InferenceFailed."""
        pixels: NDArray[np.uint8] | Decode
        decoding: Decoding | None = None
        if isinstance(image, np.ndarray):
            pixels = image
        else:
            pixels = functools.partial(decode, image, live.model.preprocessing, self.max_pixels)
            if not live.model.streams:  # else the thread that runs it decodes it: two hops less
                loop = asyncio.get_running_loop()
                pixels, decoding = await loop.run_in_executor(self.decoders, timed, pixels, time.perf_counter())
        answer = await live.classify(pixels)
        waited = decode_seconds = 0.0
        if decoding := answer.decoding or decoding:
            waited, decode_seconds = decoding.waited, decoding.seconds
            if request := CURRENT.get():
                request.decoded(decoding)
        return Outcome(decode_seconds, waited + answer.queue_seconds, answer.inference_seconds, answer.probabilities)


def most_likely(probabilities: NDArray[np.float32], k: int) -> list[int]:
    """The indices of the k most likely classes, best first, equals by index."""
    # a stable sort of 1000 floats takes 30 us; argpartition takes 10 and orders equals at will
    order: list[int] = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return order
