"""How images get into a session and probabilities out of it, on a CPU and on a device with memory of its own."""

import bisect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.contract.manifest import INPUT_NAME, OUTPUT_NAME


class Runner(Protocol):
    """Runs a session."""

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """What it runs."""

    @property
    def sizes(self) -> Sequence[int] | None:
        """The batch sizes that it keeps to, ascending; None where any is as good."""

    def rows(self, n: int) -> int:
        """How many images to give `run` for n of them, so that nothing has to be copied once more."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [n, height, width, 3] to float32 [n, classes], the caller's own. Thread-safe."""


class DirectRunner:
    """Hands arrays to the session as they come."""

    sizes = None

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def rows(self, n: int) -> int:
        return n

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self.session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
        return output

    def shrink(self, images: NDArray[np.uint8]) -> None:
        """Runs these, and gives back what larger batches have left in the session's arena; on the CPU provider."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.session.run([OUTPUT_NAME], {INPUT_NAME: images}, options)


@dataclass(frozen=True)
class _Binding:
    """A session's input and output at one batch size: always at the same addresses."""

    session: onnxruntime.InferenceSession
    io: onnxruntime.IOBinding
    input: onnxruntime.OrtValue
    output: onnxruntime.OrtValue
    options: onnxruntime.RunOptions


class BoundRunner:
    """Runs a few batch sizes only, each with buffers of its own on the device ("cuda", or "cpu").

    What is not of one of the sizes is filled up with zeros; more than the largest goes in parts. With `graphs` each
    size is a CUDA graph of its own, which the session captures as it runs that size for the first time. Without, a
    session on CUDA has the plans of its convolutions for one input shape at a time, and makes those of another in
    0.2 s: there each size gets a session of its own, from `another`.

    All runs happen in one thread: it guards the buffers, ONNX Runtime keeps captured graphs by thread, and a session
    with graphs must not be run by two at once.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        sizes: Sequence[int],
        device: str = "cuda",
        *,
        graphs: bool = False,
        another: Callable[[], onnxruntime.InferenceSession] | None = None,
    ) -> None:
        self.session = session
        self.sizes: Sequence[int] = sorted(sizes)
        self._device = device
        self._graphs = graphs
        self._another = another
        self._image = session.get_inputs()[0].shape[1:]
        self._classes = session.get_outputs()[0].shape[1]
        self._bindings: dict[int, _Binding] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")  # ends with the runner

    def rows(self, n: int) -> int:
        return fitting(self.sizes, n)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if images.dtype != np.uint8 or list(images.shape[1:]) != self._image:
            # OrtValue compares neither: it would take the bytes for what they are not
            raise ValueError(f"images should be uint8 {self._image}, they are {images.dtype} {list(images.shape[1:])}")
        return self._thread.submit(self._run, images).result()

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers, largest = np.empty((len(images), self._classes), np.float32), self.sizes[-1]
        for i in range(0, len(images), largest):
            part = images[i : i + largest]
            answers[i : i + largest] = self._run_part(part)[: len(part)]
        return answers

    def _run_part(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """At least a row for each image. On a CPU it is the buffer itself: the next run writes over it."""
        n, size = len(images), self.rows(len(images))
        if size not in self._bindings:
            self._bindings[size] = self._bind(size)
        binding = self._bindings[size]
        if n < size:
            images = np.concatenate([images, np.zeros((size - n, *self._image), np.uint8)])
        binding.input.update_inplace(np.ascontiguousarray(images))
        binding.session.run_with_iobinding(binding.io, binding.options)
        output: NDArray[np.float32] = binding.output.numpy()
        return output

    def _bind(self, size: int) -> _Binding:
        image = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, *self._image], np.uint8, self._device, 0)
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, self._classes], np.float32, self._device, 0)
        session = self._another() if self._another and self._bindings else self.session
        io = session.io_binding()
        io.bind_ortvalue_input(INPUT_NAME, image)
        io.bind_ortvalue_output(OUTPUT_NAME, output)
        options = onnxruntime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(size))
        return _Binding(session, io, image, output, options)


def fitting(sizes: Sequence[int], n: int) -> int:
    """The smallest of the sizes that holds n, or the largest."""
    return sizes[min(bisect.bisect_left(sizes, n), len(sizes) - 1)]
