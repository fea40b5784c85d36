"""The model in several runs side by side: what a processor is best kept busy with when many images wait."""

from dataclasses import dataclass

from app.execution.runner import Runner


@dataclass
class Streams:
    """Up to `count` runs of one thread each, in one session: it computes in its caller's thread.

    A run with a thread a core waits at the end of each layer for the slowest; whatever else wants a core for a moment,
    as the decoding of the next image does, holds up all of them.
    """

    runner: Runner
    count: int
    curve: dict[int, float]  # CPU seconds of the slowest of `count` runs, by batch size
    max_batch: int

    @property
    def rate(self) -> float:
        """Images a second of all of them, at best."""
        return max(self.count * size / seconds for size, seconds in self.curve.items())
