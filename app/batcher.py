"""Many waiting images, one model call.

Work-conserving: an idle model never waits, a batch is what gathered while the last one ran. The model runs in the
batcher's own thread, which takes the next batch itself: the model never waits for the event loop.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's row of the output: float32 [classes]. Times in seconds."""

    probabilities: NDArray[np.float32]
    queue_seconds: float
    inference_seconds: float


@dataclass(slots=True, eq=False)
class _Waiting:
    image: NDArray[np.uint8]
    answer: asyncio.Future[Answer]
    since: float


class Batcher:
    """Runs images in batches of up to `max_batch`.

    `run` takes uint8 [n, *shape] and gives float32 [n, classes]; `pad` says how many rows to run for n images (a
    provider that plans for each input shape wants few of them), `delay` how many seconds an idle model waits for a
    full batch. The input is one buffer that is used again for each batch: `run` must not keep it.
    """

    def __init__(
        self,
        run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        shape: tuple[int, ...],
        max_batch: int,
        pad: Callable[[int], int] = lambda n: n,
        delay: float = 0.0,
    ) -> None:
        self._run = run
        self._pad = pad
        self._delay = delay
        self._max_batch = max_batch
        self._buffer = np.zeros((max_batch, *shape), np.uint8)
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def submit(self, image: NDArray[np.uint8]) -> Answer:
        """The answer for one image, uint8 `shape`. Raises InferenceFailed.

        Cancelling it (a deadline, a client that left) takes the image out of the queue before it runs.
        """
        waiting = _Waiting(image, asyncio.get_running_loop().create_future(), time.perf_counter())
        with self._changed:
            if self._closed:
                raise RuntimeError("submit to a closed Batcher")
            self._queue.append(waiting)
            self._changed.notify()
        return await waiting.answer

    def close(self) -> None:
        """Runs what is queued, then ends the thread; returns at once."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self) -> None:
        """Waits until a closed batcher's thread has ended."""
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._compute(batch)

    def _take(self) -> list[_Waiting] | None:
        """The next batch, empty when all who waited have left, None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            if self._delay:
                full = self._queue[0].since + self._delay - time.perf_counter()
                self._changed.wait_for(lambda: len(self._queue) >= self._max_batch or self._closed, full)
            batch: list[_Waiting] = []
            while self._queue and len(batch) < self._max_batch:
                waiting = self._queue.popleft()
                if not waiting.answer.cancelled():
                    batch.append(waiting)
            return batch

    def _compute(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        output: NDArray[np.float32] | InferenceFailed
        try:
            for row, waiting in zip(self._buffer, batch, strict=False):
                row[...] = waiting.image
            output = self._run(self._buffer[: self._pad(len(batch))])
            if len(output) < len(batch):
                raise ValueError(f"{len(batch)} images went in, {len(output)} rows came out")
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            log.exception("a run of %d images failed", len(batch))
            output = InferenceFailed(f"the model failed on a batch of {len(batch)}: {type(error).__name__}")
        seconds = time.perf_counter() - started
        # a closed loop has nobody waiting
        with contextlib.suppress(RuntimeError):
            # one wake-up of the loop for the batch, not one for each image
            batch[0].answer.get_loop().call_soon_threadsafe(_deliver, batch, output, started, seconds)


def _deliver(
    batch: list[_Waiting], output: NDArray[np.float32] | InferenceFailed, started: float, seconds: float
) -> None:
    for row, waiting in enumerate(batch):
        if waiting.answer.done():  # cancelled while the batch ran
            continue
        if isinstance(output, InferenceFailed):
            # one each: a traceback grows where it is raised
            waiting.answer.set_exception(InferenceFailed(output.detail))
        else:
            waiting.answer.set_result(Answer(output[row], started - waiting.since, seconds))
