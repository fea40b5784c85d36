"""One loaded version: verified, warm, and able to run."""

import contextlib
import ctypes
import dataclasses
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.execution.latency import GROWTH, LARGEST_BATCH, fastest_run, measure, powers_of_two, smallest_worthwhile
from app.execution.provider import EXECUTION_PROVIDERS, TRIALS, Execution
from app.execution.runner import DirectRunner, Runner
from app.execution.streams import Streams
from app.execution.turns import Turns
from training.contract import GOLDEN_FILE, GOLDEN_PROBABILITIES, INPUT_NAME, OUTPUT_NAME, Manifest, ModelRepository

log = logging.getLogger(__name__)

# max abs difference of probabilities: fp32's from Keras', the others' from their own on the machine that judged their
# accuracy; other kernels round otherwise, while a CPU whose kernels saturate and a sum that overflows are far off
GOLDEN_TOLERANCE = {"fp32": 1e-4, "int8": 0.1, "fp16": 0.05}
TIMED_RUNS = 10  # in 0.1 s at most; of 3, the first second of a start made INT8 on OpenVINO look slower than float32


class ModelError(Exception):
    """A version that can not be served here; the message says what was expected and what came."""


class Model:
    """A version of the repository at one precision on one execution provider.

    Made by `load_model`. Has run its golden images and every batch size up to `max_batch` that it will pad to.
    """

    def __init__(self, runner: Runner, manifest: Manifest, precision: str, provider: str, turns: Turns) -> None:
        self.name = manifest.name
        self.version = manifest.version
        self.labels = manifest.labels
        self.preprocessing = manifest.preprocessing
        self.precision = precision
        self.provider = provider
        self.speeds: dict[str, float] = {}  # images/s of each precision that was tried here, on a CPU in one thread
        self.curve: dict[int, float] = {}  # seconds of a run by batch size
        self.max_batch = 1
        self.streams: Streams | None = None  # what to do when many images wait, if it is not batches
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
            self.curve = measure(self.seconds, self.sizes or sorted({1, max_batch}), to_the_end=True)
            self.max_batch = max_batch

    def give_back_memory(self) -> None:
        """What the tries of larger batches have taken."""
        runners = [self.runner, *([self.streams.runner] if self.streams else [])]
        for runner in runners:
            if self.provider == "cpu" and isinstance(runner, DirectRunner):
                self._timed(runner.shrink, 1)
        _trim_heap()

    def try_streams(self, narrow: "Model", count: int, sizes: Sequence[int]) -> None:
        """Keeps runs side by side, of the same version in one thread, unless one at a time is clearly faster; `sizes`
        are tried in each.

        What is measured is the model alone: beside the decoding of images, which costs streams less, they gain.
        """
        streams = Streams(narrow.runner, count)
        with self._turns.beside(count) as threads:
            streams.curve = measure(lambda n: max(threads.map(narrow.cpu_seconds, [n] * count)), sizes)
        streams.max_batch = smallest_worthwhile(streams.curve)
        if GROWTH * streams.rate > max(size / seconds for size, seconds in self.curve.items()):
            self.streams = streams


def load_model(
    repository: ModelRepository,
    version: int,
    execution: Execution,
    precision: str,
    max_batch: int | Literal["auto"],
    limit: int,
) -> Model:
    """Loads, verifies and warms a version; takes seconds, so call it off the event loop.

    Raises ContractError (files), ModelError (graph, golden images) and whatever ONNX Runtime raises.
    """
    manifest = repository.manifest(version)
    if manifest.version != version:
        raise ModelError(f"the manifest of version {version} should say so, it says {manifest.version}")
    repository.verify_files(version)
    folder, precisions = repository.path(version), _allowed(manifest, precision, execution.provider)
    try:
        model = _ready(manifest, folder, precisions, execution, max_batch, limit)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        if not execution.cuda_graphs:
            raise
        log.warning("version %d runs without CUDA graphs: %s", version, error)
        model = None
    if model is None:  # out here the failed session is gone: the exception held it
        without = dataclasses.replace(execution, cuda_graphs=False)
        model = _ready(manifest, folder, precisions, without, max_batch, limit)
    model.give_back_memory()
    log.info(
        "model %s version %d: %s on %s, max_batch %d; %s; by precision %s; %s",
        *(model.name, version, model.precision, EXECUTION_PROVIDERS[model.provider], model.max_batch),
        ", ".join(f"{n}: {1e3 * s:.3g} ms, {n / s:.0f} images/s" for n, s in model.curve.items()),
        ", ".join(f"{name} {speed:.0f} images/s" for name, speed in model.speeds.items()),
        f"{s.count} streams of {s.max_batch}: {s.rate:.0f} images/s" if (s := model.streams) else "no streams",
    )
    return model


def batch_sizes(max_batch: int | Literal["auto"], limit: int) -> list[int]:
    """The sizes that may be run: powers of two up to `max_batch`, with "auto" to the largest that is tried."""
    return powers_of_two(min(limit, LARGEST_BATCH) if max_batch == "auto" else max_batch)


def _ready(
    manifest: Manifest,
    folder: Path,
    precisions: list[str],
    execution: Execution,
    max_batch: int | Literal["auto"],
    limit: int,
) -> Model:
    sizes = batch_sizes(max_batch, limit)
    alone = execution.alone()
    if alone == execution:
        model = _fastest(manifest, folder, precisions, execution, sizes)
        model.warm_up(max_batch, limit)
    else:
        with execution.turns.beside(1) as thread:
            fastest = thread.submit(_fastest, manifest, folder, precisions, alone, sizes).result()
        model = _open(manifest, folder, fastest.precision, execution, sizes)
        model.speeds = fastest.speeds
        model.warm_up(max_batch, limit)
        model.try_streams(fastest, execution.threads, sizes)
    if model.sizes:  # each has kernels of its own, and perhaps a captured graph
        images, expected = _read_golden(model, folder / GOLDEN_FILE)
        for size in model.curve:
            rows = np.arange(size) % len(images)
            _check_answers(model.precision, model.run(images[rows]), expected[rows])
    return model


def _allowed(manifest: Manifest, precision: str, provider: str) -> list[str]:
    """The precisions to try, the likeliest first."""
    wanted = TRIALS[provider].precisions if precision == "auto" else (precision,)
    if allowed := [name for name in wanted if name in manifest.variants]:
        return allowed
    has = ", ".join(manifest.variants) or "none"
    raise ModelError(f"RESNEXT_PRECISION is {precision}, version {manifest.version} has {has}")


def _fastest(
    manifest: Manifest, folder: Path, precisions: list[str], execution: Execution, sizes: Sequence[int]
) -> Model:
    """Opens and checks each; keeps the one that is fastest on this machine. One that is not fit is left out.

    On a CPU `execution` is one thread, whose CPU time counts: a training beside a start took INT8 for the slower one.
    Raises ModelError when none is fit.
    """
    trial = TRIALS[execution.provider]
    best: Model | None = None
    speeds: dict[str, float] = {}
    for precision in precisions:
        try:
            model = _open(manifest, folder, precision, execution, sizes)
        except ModelError as error:
            if precision == precisions[-1] and best is None:
                raise
            log.warning("%s of version %d is left out: %s", precision, manifest.version, error)
            continue
        batch = min(trial.batch, sizes[-1])
        seconds = model.cpu_seconds if execution.provider == "cpu" else model.seconds
        speeds[precision] = batch / fastest_run(seconds, batch, TIMED_RUNS)
        if best is None or speeds[precision] > speeds[best.precision]:
            best = model
        del model  # before the next one is opened: each has its own copy of the weights
        _trim_heap()
        if not trial.timed:
            break
    assert best
    best.speeds = speeds
    return best


def _open(manifest: Manifest, folder: Path, precision: str, execution: Execution, sizes: Sequence[int]) -> Model:
    file, size = manifest.variants[precision].file, manifest.preprocessing
    for name in (file, GOLDEN_FILE):
        if name not in manifest.files:
            raise ModelError(f"{name} should be among the manifest's files, which are {', '.join(manifest.files)}")
    try:
        runner = execution.open(folder / file, precision, (size.height, size.width, 3), sizes)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        raise ModelError(f"{file} can not be opened on {EXECUTION_PROVIDERS[execution.provider]}: {error}") from error
    _check_graph(runner.session, manifest, file)
    model = Model(runner, manifest, precision, execution.provider, execution.turns)
    images, expected = _read_golden(model, folder / GOLDEN_FILE)
    # one by one: where requests are served meanwhile, they wait for one run
    _check_answers(precision, np.concatenate([model.run(image[None]) for image in images]), expected)
    return model


def _trim_heap() -> None:
    """glibc, for one, keeps what was freed: after the trial of two precisions 210 of 357 MB."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest, file: str) -> None:
    """Names, types and shapes, against the contract and the manifest."""
    size = manifest.preprocessing
    _check_tensor(f"{file}: inputs", session.get_inputs(), INPUT_NAME, "tensor(uint8)", [size.height, size.width, 3])
    _check_tensor(f"{file}: outputs", session.get_outputs(), OUTPUT_NAME, "tensor(float)", [len(manifest.labels)])


def _check_tensor(where: str, tensors: list[onnxruntime.NodeArg], name: str, element: str, shape: list[int]) -> None:
    expected = f"{name} {element} [N, {', '.join(map(str, shape))}]"
    actual = "; ".join(f"{t.name} {t.type} {t.shape}" for t in tensors)
    match tensors:
        case [t] if (t.name, t.type, t.shape[1:]) == (name, element, shape) and not isinstance(t.shape[0], int):
            return
    raise ModelError(f"{where} should be {expected}, they are {actual}")


def _read_golden(model: Model, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Real images that were kept with the version, and what was said of them at this precision."""
    try:
        with path.open("rb") as file, np.load(file) as golden:  # numpy leaves a file open that it can not read
            images, expected = golden["images"], golden[GOLDEN_PROBABILITIES[model.precision]]
    except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path.name} should hold images and probabilities: {error}") from error
    n = len(images)
    shapes = (images.dtype, images.shape[1:], expected.shape)
    if not n or shapes != (np.uint8, model.shape, (n, len(model.labels))):
        raise ModelError(
            f"{path.name} should hold uint8 images {list(model.shape)}, at least one, and {len(model.labels)} "
            f"probabilities of each, it has {images.dtype} {list(images.shape)} and {list(expected.shape)}"
        )
    return images, expected


def _check_answers(precision: str, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """The golden check: this machine must say of the images what was said then."""
    tolerance = GOLDEN_TOLERANCE[precision]
    difference = float(np.abs(actual - expected).max())
    if not difference <= tolerance:  # so that NaN fails
        whose = "Keras'" if precision == "fp32" else "those that it was judged by"
        raise ModelError(
            f"golden check: probabilities should be within {tolerance:g} of {whose}, they differ by {difference:.3g}"
        )
    wrong = int((actual.argmax(1) != expected.argmax(1)).sum())
    if wrong and precision == "fp32":
        raise ModelError(
            f"golden check: the top class should be Keras' on all {len(actual)} images, it differs on {wrong}"
        )
