"""The model in several runs side by side: what a processor is best kept busy with when many images wait."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.execution.runner import Runner


@dataclass
class Streams:
    """Up to `count` runs of one thread each, in one session: it computes in its caller's thread.

    A run with a thread a core waits at the end of each layer for the slowest; whatever else wants a core for a moment,
    as the decoding of the next image does, holds up all of them.
    """

    runner: Runner
    count: int
    curve: dict[int, float] = field(default_factory=dict)  # seconds of `count` runs at once, by batch size of each
    max_batch: int = 1

    @property
    def rate(self) -> float:
        """Images a second of all of them, at best."""
        return max(self.count * size / seconds for size, seconds in self.curve.items())

    def run_all(self, images: NDArray[np.uint8]) -> None:
        """The same batch in each stream at once."""
        with ThreadPoolExecutor(self.count) as threads:
            list(threads.map(self.runner.run, [images] * self.count))
