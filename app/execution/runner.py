"""How images get into a session and probabilities out of it, on a CPU and on a device with memory of its own."""

import bisect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.errors import RunTimedOut
from app.watch import Kind, Watch
from training.contract.manifest import INPUT_NAME, OUTPUT_NAME

R = TypeVar("R")

RUN_S = 10.0  # that a run may take at least
IMAGE_S = 1.0  # more for each image, while it is not known how long a run takes
FIRST = 6  # times as long on a device, whose first runs load and choose its kernels


class Runner(Protocol):
    """Runs a session."""

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The session that it runs."""

    @property
    def sizes(self) -> Sequence[int] | None:
        """The batch sizes that it keeps to, ascending; None where every size is as good."""

    def rows(self, n: int) -> int:
        """Returns how many rows to give `run` for n images, so that nothing is copied once more."""

    def run(self, images: NDArray[np.uint8], limit: float | None = None) -> NDArray[np.float32]:
        """Computes uint8 [n, height, width, 3] to float32 [n, classes], which the caller owns. Thread-safe.

        `limit` is in seconds; without one the runner takes the longest that a run may take whose time is not known.
        Raises RunTimedOut when the run was ended at its limit.
        """


@dataclass(frozen=True)
class RunLimit:
    """The watch over runs. One that is over its limit is told to end, which it does before its next operator.

    An operator that never ends cannot be ended. `seconds` is what a run may take at least. A run without a limit of its
    own is one of a load, which requests can do without.
    """

    watch: Watch = field(default_factory=Watch)
    seconds: float = RUN_S

    def run(self, call: Callable[[], R], options: onnxruntime.RunOptions, images: int, limit: float | None) -> R:
        """Returns what the call returns, which is a run with these options. Raises RunTimedOut when it was ended."""
        kind: Kind = "run"
        if limit is None:
            kind, limit = "load", self.seconds + IMAGE_S * images
        try:
            terminate = partial(setattr, options, "terminate", True)
            with self.watch.begin(kind, f"a run of {images} images", limit, terminate):
                return call()
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            if not options.terminate:
                raise
            raise RunTimedOut(f"a run of {images} images was ended after {limit:g} s") from error
        finally:
            options.terminate = False  # else it would end the next run with these options, too


class DirectRunner:
    """A runner that hands arrays to the session as they come."""

    sizes = None

    def __init__(self, session: onnxruntime.InferenceSession, limit: RunLimit | None = None) -> None:
        self.session = session
        self._limit = limit or RunLimit()

    def rows(self, n: int) -> int:
        return n

    def run(self, images: NDArray[np.uint8], limit: float | None = None) -> NDArray[np.float32]:
        return self._run(images, onnxruntime.RunOptions(), limit)

    def shrink(self, images: NDArray[np.uint8]) -> None:
        """Runs these images and gives back what larger batches left in the session's arena. CPU provider only."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run(images, options, None)

    def _run(
        self, images: NDArray[np.uint8], options: onnxruntime.RunOptions, limit: float | None
    ) -> NDArray[np.float32]:
        run = partial(self.session.run, [OUTPUT_NAME], {INPUT_NAME: images}, options)
        output: NDArray[np.float32] = self._limit.run(run, options, len(images), limit)[0]
        return output


@dataclass(frozen=True)
class _Binding:
    """The input and output of a session at one batch size, always at the same addresses."""

    session: onnxruntime.InferenceSession
    io: onnxruntime.IOBinding
    input: onnxruntime.OrtValue
    output: onnxruntime.OrtValue
    options: onnxruntime.RunOptions


class BoundRunner:
    """A runner of a few batch sizes only, each with buffers of its own on the device ("cuda" or "cpu").

    It fills up other sizes with zeros and runs more images than the largest size in parts. With `graphs` each size is a
    CUDA graph of its own, which the session captures as it runs that size for the first time. Without graphs, a session
    on CUDA holds the plans of its convolutions for one input shape at a time and makes those of another shape in 0.2 s:
    so each size gets a session of its own, from `another`.

    All runs happen in one thread: it guards the buffers, ONNX Runtime keeps captured graphs by thread, and two threads
    must not run a session with graphs at once.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        sizes: Sequence[int],
        device: str = "cuda",
        *,
        graphs: bool = False,
        another: Callable[[], onnxruntime.InferenceSession] | None = None,
        limit: RunLimit | None = None,
    ) -> None:
        self.session = session
        self.sizes: Sequence[int] = sorted(sizes)
        self._device = device
        self._graphs = graphs
        self._another = another
        self._limit = limit or RunLimit()
        self._image = session.get_inputs()[0].shape[1:]
        self._classes = session.get_outputs()[0].shape[1]
        self.bindings: dict[int, _Binding] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")  # ends with the runner

    def rows(self, n: int) -> int:
        return fitting(self.sizes, n)

    def run(self, images: NDArray[np.uint8], limit: float | None = None) -> NDArray[np.float32]:
        if images.dtype != np.uint8 or list(images.shape[1:]) != self._image:
            # OrtValue checks neither and would misread the bytes
            raise ValueError(f"images should be uint8 {self._image}, they are {images.dtype} {list(images.shape[1:])}")
        return self._thread.submit(self._run, images, limit).result()

    def _run(self, images: NDArray[np.uint8], limit: float | None) -> NDArray[np.float32]:
        answers, largest = np.empty((len(images), self._classes), np.float32), self.sizes[-1]
        for i in range(0, len(images), largest):
            part = images[i : i + largest]
            answers[i : i + largest] = self._run_part(part, limit)[: len(part)]
        return answers

    def _run_part(self, images: NDArray[np.uint8], limit: float | None) -> NDArray[np.float32]:
        """Returns at least a row for each image. On a CPU it is the buffer itself, which the next run overwrites."""
        n, size = len(images), self.rows(len(images))
        if size not in self.bindings:
            self.bindings[size] = self._bind(size)
        binding = self.bindings[size]
        if n < size:
            images = np.concatenate([images, np.zeros((size - n, *self._image), np.uint8)])
        binding.input.update_inplace(np.ascontiguousarray(images))
        run = partial(binding.session.run_with_iobinding, binding.io, binding.options)
        self._limit.run(run, binding.options, n, limit)
        output: NDArray[np.float32] = binding.output.numpy()
        return output

    def _bind(self, size: int) -> _Binding:
        image = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, *self._image], np.uint8, self._device, 0)
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, self._classes], np.float32, self._device, 0)
        session = self._another() if self._another and self.bindings else self.session
        io = session.io_binding()
        io.bind_ortvalue_input(INPUT_NAME, image)
        io.bind_ortvalue_output(OUTPUT_NAME, output)
        options = onnxruntime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(size))
        return _Binding(session, io, image, output, options)


def fitting(sizes: Sequence[int], n: int) -> int:
    """Returns the smallest of the sizes that holds n, or the largest."""
    return sizes[min(bisect.bisect_left(sizes, n), len(sizes) - 1)]
