"""One loaded version: verified, measured, warm, and able to run."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.execution.measured import Measured
from app.execution.provider import Provider
from app.execution.runner import RUN_S, Runner
from app.execution.turns import Turns
from training.contract.manifest import Manifest, Precision, Preprocessing

TIMES_MEASURED = 10  # that a run may take


@dataclass(frozen=True)
class Streams:
    """Up to `count` runs of one thread each, side by side in one session, which computes in its caller's thread.

    A run with a thread a core waits at the end of each layer for the slowest; whatever else wants a core for a moment,
    as the decoding of the next image does, holds up all of them.
    """

    runner: Runner
    count: int


@dataclass(frozen=True, eq=False)
class Model:
    """A version at one precision on one execution provider. `app.execution.loading` builds it.

    It has answered its golden images and has run every batch size that it pads to. `streams` run when many images wait;
    without them larger batches do.
    """

    runner: Runner
    manifest: Manifest
    precision: Precision
    provider: Provider
    measured: Measured
    streams: Streams | None
    turns: Turns
    run_seconds: float = RUN_S  # that a run may take at least

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def labels(self) -> list[str]:
        return self.manifest.labels

    @property
    def preprocessing(self) -> Preprocessing:
        return self.manifest.preprocessing

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels (3) of an image."""
        return self.manifest.preprocessing.shape

    def run(self, images: NDArray[np.uint8], alone: bool = True) -> NDArray[np.float32]:
        """Answers requests: uint8 [n, height, width, 3] to probabilities, float32 [n, classes]. Thread-safe.

        With `alone=False` the run is one of the `streams`. Raises RunTimedOut.
        """
        runner = self.runner if alone or self.streams is None else self.streams.runner
        with self.turns.for_request():
            return runner.run(images, self.run_limit)

    @cached_property
    def run_limit(self) -> float:
        """The seconds that a run may take: many times what the longest took when it was measured."""
        curves = (self.measured.alone, self.measured.crowd)
        longest = max(seconds for curve in curves for seconds in curve.seconds.values())
        return max(self.run_seconds, TIMES_MEASURED * longest)

    @cached_property
    def rate(self) -> float:
        """Images a second when many wait, as measured at the load."""
        return self.measured.crowd.rate(self.streams.count) if self.streams else self.measured.alone.rate()

    def padded(self, n: int) -> int:
        """Returns how many rows to run for n images: on a GPU the next size that it keeps to."""
        return self.runner.rows(n)
