"""The bound that no server can beat: the same decode and the same `session.run` with nothing around them."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.execution.session import Execution
from benchmarks.servers import CORES, PROVIDER
from training.contract.manifest import Precision, Preprocessing
from training.images.decode import decode

T = TypeVar("T")
Image = NDArray[np.uint8]
GPU_BATCHES = (1, 8, 32, 128)


@dataclass(frozen=True)
class Bound:
    """The bound of one file: images a second over all cores, and the seconds of a lone image."""

    decode: float
    inference: float
    decode_seconds: float
    inference_seconds: float

    @property
    def crowd(self) -> float:
        """Returns images a second with many clients: on a CPU both parts share the cores, on a GPU they overlap."""
        if PROVIDER != "cpu":
            return min(self.decode, self.inference)
        return 1 / (1 / self.decode + 1 / self.inference)

    @property
    def alone(self) -> float:
        """Returns images a second with one client."""
        return 1 / (self.decode_seconds + self.inference_seconds)


class Raw:
    """A model file in two sessions: one with a thread a core, and one that runs in its caller's thread."""

    def __init__(self, model: Path, precision: Precision, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        shape = preprocessing.shape
        self.wide = Execution(PROVIDER, CORES).open(model, precision, shape, GPU_BATCHES)
        self.narrow = Execution(PROVIDER, 1).open(model, precision, shape, GPU_BATCHES) if PROVIDER == "cpu" else None

    def top_classes(self, images: Sequence[Image]) -> list[int]:
        """Returns the top class of each image, run alone."""
        return [int(self.wide.run(image[None]).argmax()) for image in images]

    def measure(self, kinds: dict[str, list[bytes]], seconds: float) -> dict[str, Bound]:
        """Returns the bound for each kind. Takes `seconds` five times for one kind and twice for each further."""
        images = [decode(photo, self.preprocessing)[None] for photo in next(iter(kinds.values()))]

        def decode_one(photo: bytes) -> object:
            return decode(photo, self.preprocessing)

        alone = rate(self.wide.run, images, 1, seconds)
        if self.narrow:
            pairs = [np.concatenate(pair) for pair in pairwise(images)]
            one_each = rate(self.narrow.run, images, CORES, seconds)
            inference = max(alone, one_each, 2 * rate(self.narrow.run, pairs, CORES, seconds))
        else:
            batches = {size: np.concatenate([images[i % len(images)] for i in range(size)]) for size in GPU_BATCHES}
            inference = max(size * rate(self.wide.run, [batch], 2, seconds) for size, batch in batches.items())
        return {
            kind: Bound(
                decode=rate(decode_one, photos, CORES, seconds),
                inference=inference,
                decode_seconds=1 / rate(decode_one, photos, 1, seconds),
                inference_seconds=1 / alone,
            )
            for kind, photos in kinds.items()
        }


def rate(function: Callable[[T], object], items: Sequence[T], threads: int, seconds: float) -> float:
    """Returns calls a second, made in `threads` threads at once."""

    def work(source: Iterator[T]) -> float:
        function(next(source))  # warms up
        calls, elapsed, begun = 0, 0.0, time.perf_counter()
        while elapsed < seconds:
            function(next(source))
            calls += 1
            elapsed = time.perf_counter() - begun
        return calls / elapsed

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, [cycle(items) for _ in range(threads)]))
