"""The path of a request behind every protocol: admission, deadline, decoding in threads, batcher."""

import asyncio
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, NoValidImage
from app.execution.cores import usable_cores
from app.inference.admission import Admission
from app.inference.batcher import Answer, timed
from app.inference.deployment import Deployment
from app.observability.observation import CURRENT
from app.watch import DECODE_S, Watch
from training.contract.manifest import Preprocessing
from training.environment import Limits
from training.images.decode import ImageError, decode

OTHERS_S = 5.0  # for each other image in decoding: this one may have to wait for its memory


@dataclass(frozen=True, slots=True)
class Inference:
    """The path of every request: `admission` bounds the queue, `decoders` decode where a model's own threads do not.

    `limits` say which images are decoded.
    """

    admission: Admission
    decoders: ThreadPoolExecutor
    limits: Limits
    watch: Watch = field(default_factory=Watch)
    decode_seconds: float = field(default_factory=lambda: DECODE_S + OTHERS_S * usable_cores())

    async def infer(
        self,
        images: Sequence[bytes | NDArray[np.uint8]],
        live: Deployment,
        until: AbstractAsyncContextManager[None],
        *,
        partial: bool,
    ) -> list[Answer | ImageError]:
        """Returns an outcome for each image. An image is encoded, or pixels of the model's shape.

        The caller holds a lease on `live`. `until` cancels a request that takes too long. With `partial=False` the
        first unusable image fails the whole request with NoValidImage. Raises QueueFull, InferenceFailed, and what
        `until` raises.
        """
        begun = time.perf_counter()
        try:
            with self.admission.admit(len(images)):
                async with until:
                    found = await asyncio.gather(
                        *(self._classify(image, live) for image in images), return_exceptions=True
                    )
            outcomes: list[Answer | ImageError] = []
            for position, outcome in enumerate(found):
                if isinstance(outcome, ImageError):
                    if not partial:
                        raise NoValidImage(f"image {position} cannot be used, {outcome.code}: {outcome.message}")
                elif isinstance(outcome, BaseException):
                    raise outcome
                outcomes.append(outcome)
        except BaseException as error:  # a cancelled request counts as failed
            live.statistics.failed(time.perf_counter() - begun)
            # here, since each protocol has its own status for it
            if isinstance(error, DeadlineExceeded) and (request := CURRENT.get()):
                request.drop("expired")
            raise
        if done := [outcome.timing for outcome in outcomes if isinstance(outcome, Answer)]:
            live.statistics.succeeded(done, time.perf_counter() - begun)
        else:
            live.statistics.failed(time.perf_counter() - begun)
        return outcomes

    async def _classify(self, image: bytes | NDArray[np.uint8], live: Deployment) -> Answer:
        """Decodes and classifies one image. Raises ImageError, InferenceFailed."""
        if isinstance(image, np.ndarray):
            return await live.classify(image)
        decoder = functools.partial(self._decode, image, live.model.preprocessing)
        if live.model.streams:  # the thread that runs the image decodes it, which saves two hops between threads
            return await live.classify(decoder)
        loop = asyncio.get_running_loop()
        pixels, decoding = await loop.run_in_executor(self.decoders, timed, decoder, time.perf_counter())
        return await live.classify(pixels, decoding)

    def _decode(self, image: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        with self.watch.begin("decode", "the decoding of an image", self.decode_seconds):
            return decode(image, preprocessing, self.limits)


def most_likely(probabilities: NDArray[np.float32], k: int) -> list[int]:
    """Returns the indices of the k most likely classes, best first; equal ones in the order of their index."""
    # a stable sort of 1000 floats takes 30 us; argpartition takes 10 and orders equals at will
    order: list[int] = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return order
