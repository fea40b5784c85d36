"""A version, from its files to a model that is verified, measured and warm."""

import contextlib
import ctypes
import dataclasses
import logging
import zipfile
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.execution.latency import fastest_run, measure, smallest_worthwhile
from app.execution.measured import Measured
from app.execution.model import Model, ModelError, batch_sizes
from app.execution.provider import EXECUTION_PROVIDERS, TRIALS, Execution
from app.execution.streams import Streams
from training.contract.manifest import GOLDEN_FILE, INPUT_NAME, OUTPUT_NAME, PRECISIONS, Manifest, Precision
from training.contract.parity import same_class
from training.contract.repository import ModelRepository

log = logging.getLogger(__name__)

WORTHWHILE = 1.1  # times as fast that a lower precision has to be: it costs accuracy
TIMED_RUNS = 10  # in 0.1 s at most; of 3, the first second of a start made INT8 on OpenVINO look slower than float32


def load_model(
    repository: ModelRepository,
    version: int,
    execution: Execution,
    precision: Precision | Literal["auto"],
    max_batch: int | Literal["auto"],
    limit: int,
) -> Model:
    """Loads, verifies and warms a version; takes seconds, so call it off the event loop.

    Raises ContractError (files), ModelError (graph, golden images) and whatever ONNX Runtime raises.
    """
    manifest = repository.manifest(version)
    if manifest.version != version:
        raise ModelError(f"the manifest of version {version} should say so, it says {manifest.version}")
    precisions = _allowed(manifest, precision, execution.provider)
    sizes = batch_sizes(max_batch, limit)
    package = _Package(manifest, repository.path(version), execution.provider, precisions, sizes)
    # of the other files nothing is read: the weights, the report, what is for other processors
    repository.verify_files(version, [GOLDEN_FILE, *map(package.file, precisions)])
    try:
        model = _ready(package, execution, max_batch, limit)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        if not execution.captures:
            raise
        log.warning("version %d runs without CUDA graphs: %s", version, error)
        model = None
    if model is None:  # out here the failed session is gone: the exception held it
        model = _ready(package, dataclasses.replace(execution, cuda_graphs=False), max_batch, limit)
    _trim_heap()
    log.info(
        "model %s version %d: %s on %s, max_batch %d; %s; by precision %s; %s",
        *(model.name, version, model.precision, EXECUTION_PROVIDERS[model.provider], model.max_batch),
        ", ".join(f"{n}: {1e3 * s:.3g} ms, {n / s:.0f} images/s" for n, s in model.curve.items()),
        ", ".join(f"{name} {speed:.0f} images/s" for name, speed in model.speeds.items()),
        f"{s.count} streams of {s.max_batch}: {s.rate:.0f} images/s" if (s := model.streams) else "no streams",
    )
    return model


@dataclass(frozen=True)
class _Package:
    """A version's files: `precisions` of it may be served on the provider, the lower first, in these batches."""

    manifest: Manifest
    folder: Path
    provider: str
    precisions: list[Precision]
    sizes: list[int]

    def file(self, precision: Precision) -> str:
        return self.manifest.variants[precision].file_on(self.provider)

    def network(self) -> str:
        """The same for versions that run alike, whatever their weights; where no manifest says, of this one alone."""
        files = [(name, self.file(name), self.manifest.variants[name].float_blocks) for name in self.precisions]
        whose = self.manifest.architecture or [self.manifest.files[file] for _, file, _ in files]
        return repr((whose, self.manifest.preprocessing, len(self.manifest.labels), files))

    def open(self, execution: Execution, precision: Precision) -> Model:
        """Raises ModelError."""
        name, size = self.file(precision), self.manifest.preprocessing
        try:
            runner = execution.open(self.folder / name, precision, (size.height, size.width, 3), self.sizes)
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            where = EXECUTION_PROVIDERS[execution.provider]
            raise ModelError(f"{name} can not be opened on {where}: {error}") from error
        _check_graph(runner.session, self.manifest, name)
        return Model(runner, self.manifest, precision, execution.provider, execution.turns)

    def check(self, model: Model) -> None:
        """Raises ModelError when the golden images have other answers than in the package."""
        images, expected = _read_golden(model, self.folder / GOLDEN_FILE)
        # one by one: where requests are served meanwhile, they wait for one run
        _check_answers(model.precision, np.concatenate([model.run(image[None]) for image in images]), expected)

    def check_sizes(self, model: Model) -> None:
        """The same in each size that a run is filled up to: it has kernels of its own, and perhaps a captured graph."""
        images, expected = _read_golden(model, self.folder / GOLDEN_FILE)
        for size in model.curve:
            rows = np.arange(size) % len(images)
            _check_answers(model.precision, model.run(images[rows]), expected[rows])

    def first(self, execution: Execution, precisions: Sequence[Precision]) -> Model:
        """In the first of the precisions that is fit. Raises ModelError when none is."""
        precision, *others = precisions
        try:
            model = self.open(execution, precision)
            self.check(model)
        except ModelError as error:
            if not others:
                raise
            self._leave_out(precision, error)
            model = None
        return model or self.first(execution, others)  # out here the failed session is gone: the exception held it

    def fastest(self, execution: Execution) -> Model:
        """In the precision that is fastest on this machine, of those that are fit. Raises ModelError when none is.

        On a CPU `execution` is one thread, whose CPU time counts: a training beside a start took INT8 for the slower
        one.
        """
        best: Model | None = None
        speeds: dict[str, float] = {}
        for precision in self.precisions:
            model = None  # before the next one is opened: each has its own copy of the weights
            _trim_heap()
            try:
                model = self.open(execution, precision)
                speed = self.speed(model)
                if best is None or speed * WORTHWHILE > speeds[best.precision]:  # the higher precisions come later
                    self.check(model)
                    best = model
            except ModelError as error:
                if precision == self.precisions[-1] and best is None:
                    raise
                self._leave_out(precision, error)
            else:
                speeds[precision] = speed
        assert best
        best.speeds = speeds
        return best

    def speed(self, model: Model) -> float:
        """Images a second."""
        batch = min(TRIALS[model.provider].batch, self.sizes[-1])
        seconds = model.cpu_seconds if model.provider == "cpu" else model.seconds
        return batch / fastest_run(seconds, batch, TIMED_RUNS)

    def _leave_out(self, precision: Precision, error: ModelError) -> None:
        log.warning("%s of version %d is left out: %s", precision, self.manifest.version, error)


def _ready(package: _Package, execution: Execution, max_batch: int | Literal["auto"], limit: int) -> Model:
    network = package.network()
    with execution.measured.of(network) as known:
        model = _load(package, execution, known, max_batch, limit)
        if known is None:
            crowd = model.crowd
            execution.measured.keep(
                network,
                Measured(
                    precision=model.precision,
                    speeds=model.speeds,
                    curve=model.curve,
                    max_batch=model.max_batch,
                    stream_curve=crowd.curve,
                    stream_batch=crowd.max_batch,
                ),
            )
    return model


def _load(
    package: _Package, execution: Execution, known: Measured | None, max_batch: int | Literal["auto"], limit: int
) -> Model:
    alone = execution.alone()
    if alone == execution:
        model = _choose(package, execution, known)
    else:
        with execution.turns.beside(execution.threads) as threads:
            narrow = threads.submit(_choose, package, alone, known).result()
            streams = _streams(narrow, threads, execution.threads, package.sizes, max_batch, known)
        model = package.open(execution, narrow.precision)
        package.check(model)
        model.speeds, model.streams = narrow.speeds, streams
        if max_batch == "auto":
            limit = min(limit, streams.count - 1)  # as many as there are streams are run in these
    if known and known.precision == model.precision and not model.sizes:  # each of these has to run once, anyway
        model.curve, model.max_batch = known.curve, known.max_batch
    else:
        model.warm_up(max_batch, limit)
        if model.sizes:
            package.check_sizes(model)
        model.shrink()
    return model


def _choose(package: _Package, execution: Execution, known: Measured | None) -> Model:
    """In the precision that is best here, as far as that is known."""
    if known:
        model = package.first(execution, sorted(package.precisions, key=lambda name: name != known.precision))
        model.speeds = known.speeds
    elif TRIALS[execution.provider].timed:
        model = package.fastest(execution)
    else:
        model = package.first(execution, package.precisions)
        model.speeds = {model.precision: package.speed(model)}
    return model


def _streams(
    narrow: Model,
    threads: Executor,
    count: int,
    sizes: Sequence[int],
    max_batch: int | Literal["auto"],
    known: Measured | None,
) -> Streams:
    """Runs side by side of a model in one thread, `count` of them, with the batch that is worth it in each."""
    if known and known.precision == narrow.precision:
        return Streams(narrow.runner, count, known.stream_curve, known.stream_batch)

    def slowest(n: int) -> float:
        return max(threads.map(narrow.cpu_seconds, [n] * count))

    curve = measure(slowest, sizes)
    return Streams(narrow.runner, count, curve, smallest_worthwhile(curve) if max_batch == "auto" else max_batch)


def _allowed(manifest: Manifest, precision: Precision | Literal["auto"], provider: str) -> list[Precision]:
    """The precisions to try, the lower first."""
    wanted = TRIALS[provider].precisions if precision == "auto" else (precision,)
    if allowed := [name for name in wanted if name in manifest.variants]:
        return allowed
    has = ", ".join(manifest.variants) or "none"
    raise ModelError(f"RESNEXT_PRECISION is {precision}, version {manifest.version} has {has}")


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
            images, expected = golden["images"], golden[PRECISIONS[model.precision].golden]
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


def _check_answers(precision: Precision, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """The golden check: this machine must say of the images what was said then."""
    tolerance = PRECISIONS[precision].tolerance
    difference = float(np.abs(actual - expected).max())
    if not difference <= tolerance:  # so that NaN fails
        whose = "Keras'" if precision == "fp32" else "those that it was judged by"
        raise ModelError(
            f"golden check: probabilities should be within {tolerance:g} of {whose}, they differ by {difference:.3g}"
        )
    wrong = int((~same_class(expected, actual)).sum())
    if wrong and precision == "fp32":
        raise ModelError(
            f"golden check: the top class should be Keras' on all {len(actual)} images, it differs on {wrong}"
        )
