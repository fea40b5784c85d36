"""A version's file in a session while it is loaded: what is checked and timed before it serves."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.execution.provider import Provider
from app.execution.runner import DirectRunner, Runner
from app.execution.turns import Turns
from training.contract.manifest import Manifest, Precision

DISTURBED = 2.0  # times its own CPU time that a run takes when something else has its cores


@dataclass(frozen=True)
class Opened:
    """A session of a version's file at one precision. Its runs wait for those that answer requests."""

    runner: Runner
    manifest: Manifest
    precision: Precision
    provider: Provider
    turns: Turns

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes uint8 [n, height, width, 3] to probabilities, float32 [n, classes]."""
        with self.turns.for_load():
            return self.runner.run(images)

    def shrink(self) -> None:
        """Gives back what larger batches have left in a session on the CPU."""
        if self.provider == "cpu" and isinstance(self.runner, DirectRunner):
            with self.turns.for_load():
                self.runner.shrink(self.black(1))

    def black(self, n: int) -> NDArray[np.uint8]:
        """Returns n black images."""
        return np.zeros((n, *self.manifest.preprocessing.shape), np.uint8)


class Timer:
    """Times runs of an opened file, each of n black images. Returns seconds."""

    def seconds(self, opened: Opened, n: int) -> float:
        """Times a run without the wait for its turn.

        On a CPU, when something else had the cores for most of the time, it is the CPU time of each of its threads.
        """
        images = opened.black(n)
        with opened.turns.for_load():
            used = time.process_time()
            seconds = _elapsed(time.perf_counter, opened.runner, images)
            used = time.process_time() - used
        own = used / opened.runner.session.get_session_options().intra_op_num_threads
        return own if opened.provider == "cpu" and seconds > DISTURBED * own else seconds

    def cpu_seconds(self, opened: Opened, n: int) -> float:
        """Times a run in one thread by its CPU time: what else wants the cores does not count."""
        return _elapsed(time.thread_time, opened.runner, opened.black(n))


def _elapsed(clock: Callable[[], float], runner: Runner, images: NDArray[np.uint8]) -> float:
    begun = clock()
    runner.run(images)
    return clock() - begun
