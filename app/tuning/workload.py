"""Clients that keep the path of a request busy, without HTTP: decode in threads, batch, run."""

import asyncio
import contextlib
import functools
import io
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from app.execution.model import Model
from app.inference.batcher import Batcher
from app.inference.deployment import batcher_of
from app.tuning.recommendation import Candidate
from training.images.decode import decode

PHOTOS = 4
JPEG_QUALITY = 90
SENSOR_NOISE = 6  # of 255; without noise a file is too small, and decodes too fast


@dataclass(frozen=True)
class Load:
    """Images a second, and the latency of each request in seconds, of clients that ask without a pause."""

    rate: float
    latencies: list[float]


def drive(
    photos: Sequence[bytes], model: Model, candidate: Candidate, delay: float, clients: int, seconds: float
) -> Load:
    """Lets `clients` clients ask for about `seconds`, longer where that is too short for two images each.

    `delay` is the batcher's, in seconds. Raises InferenceFailed, ImageError.
    """
    batcher = batcher_of(model, delay, max_batch=candidate.max_batch)
    decoders = ThreadPoolExecutor(candidate.decode_threads)
    try:
        return asyncio.run(_drive(photos, model, batcher, decoders, clients, seconds))
    finally:
        decoders.shutdown()
        batcher.close()
        batcher.join()


async def _drive(
    photos: Sequence[bytes],
    model: Model,
    batcher: Batcher,
    decoders: ThreadPoolExecutor,
    clients: int,
    seconds: float,
) -> Load:
    loop, begun = asyncio.get_running_loop(), time.perf_counter()
    ends: list[float] = []
    latencies: list[float] = []
    enough = asyncio.Event()

    async def ask(number: int) -> None:
        for i in itertools.count(number):
            asked = time.perf_counter()
            image = functools.partial(decode, photos[i % len(photos)], model.preprocessing)
            await batcher.submit(image if model.streams else await loop.run_in_executor(decoders, image))
            ends.append(time.perf_counter())
            latencies.append(ends[-1] - asked)
            # each client's first answer is not counted: meanwhile the queue and the caches fill
            if ends[-1] - begun > seconds and len(ends) > 2 * clients:
                enough.set()

    asking = asyncio.gather(*(ask(number) for number in range(clients)))
    stop = asyncio.create_task(enough.wait())
    either: list[asyncio.Future[Any]] = [asking, stop]  # Any: one gives a list, the other a bool
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    counted = len(ends)
    stop.cancel()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking  # raises what ended a client, if one did
    return Load((counted - clients) / (ends[counted - 1] - ends[clients - 1]), latencies[clients:counted])


def photos(width: int, height: int) -> list[bytes]:
    """Returns JPEGs of soft colors with a sensor's noise, which decode as slowly as a camera's photos of that size."""
    return [_photo(width, height, np.random.default_rng(seed)) for seed in range(PHOTOS)]


def _photo(width: int, height: int, random: np.random.Generator) -> bytes:
    colors = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    pixels = np.asarray(colors.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = pixels + random.integers(-SENSOR_NOISE, SENSOR_NOISE + 1, pixels.shape, np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
