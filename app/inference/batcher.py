"""One run of the model for many waiting images.

An idle model never waits (unless a delay is set): a batch is what gathered while the last one ran. The model runs in
threads of the batcher, which take the next batch themselves, so it never waits for the event loop. On a CPU these
threads also decode the images.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed, RunTimedOut
from app.observability.observation import CURRENT, Batch, Observation
from app.observability.timing import Decoding, Timing

logger = logging.getLogger(__name__)

Run = Callable[[NDArray[np.uint8], bool], NDArray[np.float32]]
Decode = Callable[[], NDArray[np.uint8]]
Task = Literal["decode", "alone", "crowd"]  # decode an image, run a batch on all cores, run one in a stream


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's row of the output, float32 [classes], and where its time went."""

    probabilities: NDArray[np.float32]
    timing: Timing


@dataclass(slots=True, eq=False)
class _Waiting:
    image: NDArray[np.uint8] | Decode
    answer: asyncio.Future[Answer]
    since: float
    request: Observation | None
    decoding: Decoding | None


class _Batch(NamedTuple):
    waiting: list[_Waiting]
    alone: bool  # on all cores, not in one stream
    most: int  # images, had there been as many


class Batcher:
    """A queue of images and the threads that run it.

    Few waiting images run alone, at most `max_batch` at a time, on all cores or the GPU. Once `streams` or more wait,
    that many one-thread runs go side by side, each of at most `stream_batch` images.

    `run` takes uint8 [n, *shape] and whether the run is alone, and returns float32 [n, classes]. Its input is a buffer
    that is used again: `run` must not keep it. `pad` gives the number of rows to run for n images: a provider that
    plans for each input shape should see few shapes. An idle model waits `delay` seconds for a full batch. `observe` is
    called with each batch, in one of the batcher's threads; `hung` for a run that was ended at its limit, in the event
    loop, with words.
    """

    def __init__(
        self,
        run: Run,
        shape: tuple[int, ...],
        max_batch: int,
        pad: Callable[[int], int] = lambda n: n,
        delay: float = 0.0,
        streams: int = 1,
        stream_batch: int = 1,
        observe: Callable[[Batch], None] = lambda _: None,
        hung: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._hung = hung
        self._run = run
        self._shape = shape
        self._max_batch = max_batch
        self._pad = pad
        self._observe = observe
        self._delay = delay
        self._streams = streams
        self._stream_batch = stream_batch
        self._encoded: deque[_Waiting] = deque()
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._decoding = 0
        self._running = 0
        self._alone = False  # the one run has all cores
        self._shared = False  # the queue begins with the rest of what goes to several streams
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"inference_{number}", daemon=True) for number in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, image: NDArray[np.uint8] | Decode, decoding: Decoding | None = None) -> Answer:
        """Returns the answer for one image, uint8 `shape`. A function is called for its image in one of the batcher's
        threads; `decoding` says how an image was decoded elsewhere. Raises InferenceFailed, and what the function
        raises.

        Cancelling the call (a deadline, a client that left) takes the image out of the queue before it runs.
        """
        future = asyncio.get_running_loop().create_future()
        waiting = _Waiting(image, future, time.perf_counter(), CURRENT.get(), decoding)
        with self._changed:
            if self._closed:
                raise RuntimeError("submit to a closed Batcher")
            (self._encoded if callable(image) else self._queue).append(waiting)
            self._changed.notify()
        return await waiting.answer

    def close(self) -> None:
        """Lets the threads run what is queued and then end; returns at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Waits until the threads of a closed batcher have ended."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        buffer = np.zeros((max(self._max_batch, self._stream_batch), *self._shape), np.uint8)
        while task := self._take():
            if isinstance(task, _Waiting):
                self._decode(task)
            elif task.waiting:
                self._compute(task, buffer)
                self._end()

    def _take(self) -> "_Waiting | _Batch | None":
        """Waits for work. Returns an image to decode, or a batch, which is empty when its images were cancelled; None
        when the batcher is closed and nothing is queued."""
        with self._changed:
            while True:
                left = self._delay_left()
                task = self._next(left > 0)
                if task:
                    break
                if self._closed and not self._queue:
                    return None
                self._changed.wait(left if left > 0 else None)
            if task == "decode":
                self._decoding += 1
                return self._encoded.popleft()
            alone = task == "alone"
            waiting = self._pop(self._max_batch if alone else self._share())
            if waiting:
                self._running += 1
                self._alone = alone
            self._shared = not alone and bool(self._queue)
            if self._shared:
                self._changed.notify()  # the rest of a batch for several streams has waited as long
            return _Batch(waiting, alone, most=self._max_batch if alone else self._stream_batch)

    def _delay_left(self) -> float:
        """Returns the seconds for which the queued images still wait for a full batch."""
        full = len(self._queue) >= self._max_batch
        if not (self._delay and self._queue) or full or self._shared or self._closed:
            return 0.0
        return self._queue[0].since + self._delay - time.perf_counter()

    def _next(self, delayed: bool) -> Task | None:
        queued, encoded, decoding = len(self._queue), len(self._encoded), self._decoding
        if delayed:
            queued = 0  # meanwhile more can be decoded
        elif self._delay and queued:
            # the batch that has waited goes first: an encoded image only counts as waiting
            encoded, decoding = 0, encoded + decoding
        return next_task(queued, encoded, decoding, self._running, self._alone, self._streams, self._stream_batch)

    def _decode(self, waiting: _Waiting) -> None:
        decoded = False
        if not waiting.answer.cancelled():
            assert callable(waiting.image)
            try:
                waiting.image, waiting.decoding = timed(waiting.image, waiting.since)
            except Exception as error:  # whatever it is, it answers this image and harms no other
                self._call_in_loop(waiting, _fail, waiting, error)
            else:
                waiting.since = waiting.decoding.ended
                decoded = True
        with self._changed:
            self._decoding -= 1
            if decoded:
                self._queue.append(waiting)
                self._changed.notify()

    def _share(self) -> int:
        """Returns how many of the queued images go to one of the free streams."""
        return min(self._stream_batch, math.ceil(len(self._queue) / (self._streams - self._running)))

    def _pop(self, most: int) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < most:
            waiting = self._queue.popleft()
            if not waiting.answer.cancelled():
                batch.append(waiting)
        return batch

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._alone = False
            if self._streams > 1:
                self._changed.notify_all()

    def _compute(self, batch: _Batch, buffer: NDArray[np.uint8]) -> None:
        waiting, started = batch.waiting, time.perf_counter()
        output: NDArray[np.float32] | InferenceFailed
        try:
            for row, each in zip(buffer, waiting, strict=False):
                row[...] = each.image
            output = self._run(buffer[: self._pad(len(waiting))], batch.alone)
            if len(output) < len(waiting):
                raise ValueError(f"{len(waiting)} images went in, {len(output)} rows came out")
        except RunTimedOut as error:
            logger.error("%s", error)
            output = error
            self._call_in_loop(waiting[0], self._hung, error.detail)
        except Exception as error:  # ONNX Runtime's exceptions have no base but Exception
            logger.exception("a run of %d images failed", len(waiting))
            output = InferenceFailed(f"the model failed on a batch of {len(waiting)}: {type(error).__name__}")
        seconds = time.perf_counter() - started
        self._observe(
            Batch(
                images=len(waiting),
                closed="full" if len(waiting) >= batch.most else "delay" if self._delay else "idle",
                started=started,
                seconds=seconds,
                failed=isinstance(output, InferenceFailed),
                queued=waiting,
            )
        )
        # wakes the event loop once for the batch, not once for each image
        self._call_in_loop(waiting[0], _deliver, waiting, output, started, seconds)

    def _call_in_loop(
        self, waiting: _Waiting, callback: Callable[..., None], *arguments: Any
    ) -> None:  # Any: the callback's
        with contextlib.suppress(RuntimeError):  # nobody waits in a loop that is closed
            waiting.answer.get_loop().call_soon_threadsafe(callback, *arguments)


def next_task(
    queued: int, encoded: int, decoding: int, running: int, alone: bool, streams: int, stream_batch: int
) -> Task | None:
    """Returns what a thread of a batcher should do next; None when there is nothing to do now.

    `queued` images are ready to run, `encoded` ones wait for a decoder, `decoding` ones are with one. `running` batches
    run, in one stream each, or one `alone` on all cores.
    """
    free = running < streams and not alone
    if encoded and not (free and queued >= stream_batch):
        return "decode"
    if not (queued and free):
        return None
    # an image that is being decoded will soon run: beside it, a run on all cores would share them
    if streams > 1 and (running or queued + encoded + decoding >= streams):
        return "crowd"
    return "alone"


def timed(decode: Decode, since: float) -> tuple[NDArray[np.uint8], Decoding]:
    """Decodes an image that has waited since `since`, by `time.perf_counter`; returns its pixels and how it went."""
    begun = time.perf_counter()
    image = decode()
    return image, Decoding(begun - since, begun, time.perf_counter() - begun)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _deliver(
    batch: list[_Waiting], output: NDArray[np.float32] | InferenceFailed, started: float, seconds: float
) -> None:
    for row, waiting in enumerate(batch):
        if waiting.answer.done():  # cancelled while the batch ran
            continue
        if isinstance(output, InferenceFailed):
            # an exception each, since raising one adds to its traceback
            waiting.answer.set_exception(type(output)(output.detail))
        else:
            timing = Timing.of(waiting.decoding, started - waiting.since, seconds)
            waiting.answer.set_result(Answer(output[row], timing))
