"""One loaded version: verified, warm, and able to run."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.execution.latency import LARGEST_BATCH, measure, powers_of_two, smallest_worthwhile
from app.execution.runner import DirectRunner, Runner
from app.execution.streams import Streams
from app.execution.turns import Turns
from training.contract.manifest import Manifest, Precision


class ModelError(Exception):
    """A version that can not be served here; the message says what was expected and what came."""


class Model:
    """A version of the repository at one precision on one execution provider.

    Made by `app.execution.loading`. Has run its golden images and every batch size up to `max_batch` that it will
    pad to.
    """

    def __init__(self, runner: Runner, manifest: Manifest, precision: Precision, provider: str, turns: Turns) -> None:
        self.name = manifest.name
        self.version = manifest.version
        self.labels = manifest.labels
        self.preprocessing = manifest.preprocessing
        self.precision = precision
        self.provider = provider
        self.speeds: dict[str, float] = {}  # images/s of each precision that was tried here, on a CPU in one thread
        self.curve: dict[int, float] = {}  # seconds of a run by batch size
        self.max_batch = 1
        self.streams: Streams | None = None  # what to do when many images wait, where it is not batches
        self.live = False  # until it serves, its runs wait for those that answer requests
        self.runner = runner
        self._turns = turns

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height, width, 3."""
        return (self.preprocessing.height, self.preprocessing.width, 3)

    @property
    def sizes(self) -> Sequence[int] | None:
        """The batch sizes that a run is filled up to, ascending; None where every size is as good."""
        return self.runner.sizes

    @property
    def crowd(self) -> "Model | Streams":
        """What runs when many images wait: with a `curve` and a `max_batch`."""
        return self.streams or self

    def run(self, images: NDArray[np.uint8], alone: bool = True) -> NDArray[np.float32]:
        """uint8 [n, height, width, 3] to probabilities, float32 [n, classes]. Thread-safe.

        Not `alone`, it is one of `streams`.
        """
        runner = self.runner if alone or self.streams is None else self.streams.runner
        with self._turns.for_request() if self.live else self._turns.for_load():
            return runner.run(images)

    def seconds(self, n: int) -> float:
        """Runs n black images; how long that took, without the wait for its turn."""
        return self._timed(self.runner.run, n)

    def cpu_seconds(self, n: int) -> float:
        """The same of a model in one thread, in CPU time: what else wants the cores does not count."""
        images = np.zeros((n, *self.shape), np.uint8)
        begun = time.thread_time()
        self.runner.run(images)
        return time.thread_time() - begun

    def _timed(self, run: Callable[[NDArray[np.uint8]], object], n: int) -> float:
        images = np.zeros((n, *self.shape), np.uint8)
        with self._turns.for_load():
            begun = time.perf_counter()
            run(images)
            return time.perf_counter() - begun

    def padded(self, n: int) -> int:
        """How many rows to run for n images: on a GPU the next of `sizes`; a new shape costs a search."""
        return self.runner.rows(n)

    def warm_up(self, max_batch: int | Literal["auto"], limit: int) -> None:
        """Measures the latency curve and settles `max_batch`, at most `limit`."""
        if max_batch == "auto":
            self.curve = measure(self.seconds, batch_sizes(max_batch, limit))
            self.max_batch = smallest_worthwhile(self.curve)
        else:
            self.max_batch = max_batch
            self.curve = measure(self.seconds, self.sizes or sorted({1, max_batch}), to_the_end=True)

    def shrink(self) -> None:
        """Gives back what the tries of larger batches have taken."""
        runners = [self.runner, *([self.streams.runner] if self.streams else [])]
        for runner in runners:
            if self.provider == "cpu" and isinstance(runner, DirectRunner):
                self._timed(runner.shrink, 1)


def batch_sizes(max_batch: int | Literal["auto"], limit: int) -> list[int]:
    """The sizes that may be run: powers of two up to `max_batch`, with "auto" to the largest that is tried."""
    return powers_of_two(min(limit, LARGEST_BATCH) if max_batch == "auto" else max_batch)
