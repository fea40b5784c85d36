"""A version, from its files to a model that is verified, measured and warm."""

import dataclasses
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Literal

from app.execution.choice import allowed, choose
from app.execution.latency import LARGEST_BATCH, measure, powers_of_two, smallest_worthwhile
from app.execution.measured import Curve, Measured
from app.execution.model import Model, Streams
from app.execution.opened import Opened
from app.execution.package import ModelError, Package
from app.execution.provider import PROVIDERS
from app.execution.session import Execution
from training.contract.manifest import GOLDEN_FILE, Precision
from training.contract.repository import ModelRepository
from training.system.memory import trim_heap

logger = logging.getLogger(__name__)

MaxBatch = int | Literal["auto"]


def load_model(
    repository: ModelRepository,
    version: int,
    execution: Execution,
    precision: Precision | Literal["auto"],
    max_batch: MaxBatch,
    limit: int,
) -> Model:
    """Loads, verifies and warms a version. Takes seconds, so call it off the event loop.

    `limit` bounds a `max_batch` that is measured. Raises ContractError (files), ModelError (graph, golden images) and
    whatever ONNX Runtime raises.
    """
    manifest = repository.manifest(version)
    if (manifest.name, manifest.version) != (repository.name, version):
        its = f"version {manifest.version} of {manifest.name!r}"
        raise ModelError(
            f"the manifest should be that of version {version} of {repository.name!r}, it is that of {its}"
        )
    precisions = allowed(manifest, precision, execution.provider)
    sizes = batch_sizes(max_batch, limit)
    package = Package(manifest, repository.path(version), execution.provider, precisions, sizes)
    # the other files are not read: the weights, the report, the files for other processors
    repository.verify_files(version, [GOLDEN_FILE, *map(package.file, precisions)])
    try:
        model = _load(package, execution, max_batch, limit)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        if not execution.captures:
            raise
        logger.warning("version %d runs without CUDA graphs: %s", version, error)
        model = None
    if model is None:  # out here the failed session is gone: the exception held it
        model = _load(package, dataclasses.replace(execution, cuda_graphs=False), max_batch, limit)
    trim_heap()
    _log(model)
    return model


def batch_sizes(max_batch: MaxBatch, limit: int) -> list[int]:
    """Returns the sizes that may be run: powers of two up to `max_batch`, with "auto" to the largest that is tried."""
    return powers_of_two(min(limit, LARGEST_BATCH) if max_batch == "auto" else max_batch)


def _load(package: Package, execution: Execution, max_batch: MaxBatch, limit: int) -> Model:
    """Loads a version by what is known of its network, and keeps what is measured for its later versions."""
    network = package.network()
    with execution.measured.of(network) as known:
        load = _load_with_streams if execution.has_streams else _load_alone
        model = load(package, execution, known, max_batch, limit)
        if known is None:
            execution.measured.keep(network, model.measured)
    return model


def _load_alone(
    package: Package, execution: Execution, known: Measured | None, max_batch: MaxBatch, limit: int
) -> Model:
    opened, speeds = choose(package, execution, known)
    alone = _alone(package, execution, opened, known, max_batch, limit)
    measured = Measured(precision=opened.precision, speeds=speeds, alone=alone, crowd=alone)
    return _model(opened, measured, None, execution)


def _load_with_streams(
    package: Package, execution: Execution, known: Measured | None, max_batch: MaxBatch, limit: int
) -> Model:
    count = execution.threads
    with execution.turns.beside(count) as threads:
        narrow, speeds = threads.submit(choose, package, execution.in_one_thread(), known).result()
        crowd = _crowd(execution, narrow, threads, package.sizes, max_batch, known)
    opened = package.open(execution, narrow.precision)
    package.check(opened)
    if max_batch == "auto":
        limit = min(limit, count - 1)  # as many images as there are streams run in the streams
    alone = _alone(package, execution, opened, known, max_batch, limit)
    measured = Measured(precision=opened.precision, speeds=speeds, alone=alone, crowd=crowd)
    return _model(opened, measured, Streams(narrow.runner, count), execution)


def _model(opened: Opened, measured: Measured, streams: Streams | None, execution: Execution) -> Model:
    return Model(
        opened.runner,
        opened.manifest,
        opened.precision,
        opened.provider,
        measured,
        streams,
        turns=opened.turns,
        run_seconds=execution.run_seconds,
    )


def _alone(
    package: Package, execution: Execution, opened: Opened, known: Measured | None, max_batch: MaxBatch, limit: int
) -> Curve:
    """Measures one run at a time, and so warms each batch size, unless it is known."""
    sizes = opened.runner.sizes
    if known and known.precision == opened.precision and not sizes:  # each of `sizes` has to run once, anyway
        return known.alone
    run = partial(execution.timer.seconds, opened)
    if max_batch == "auto":
        seconds = measure(run, batch_sizes(max_batch, limit))
        curve = Curve(seconds=seconds, batch=smallest_worthwhile(seconds))
    else:
        curve = Curve(seconds=measure(run, sizes or sorted({1, max_batch}), to_the_end=True), batch=max_batch)
    if sizes:
        package.check_sizes(opened, curve.seconds)
    opened.shrink()
    return curve


def _crowd(
    execution: Execution,
    narrow: Opened,
    threads: Executor,
    sizes: Sequence[int],
    max_batch: MaxBatch,
    known: Measured | None,
) -> Curve:
    """Measures one-thread runs side by side, one on each of the threads, unless they are known."""
    if known and known.precision == narrow.precision:
        return known.crowd
    run = partial(execution.timer.cpu_seconds, narrow)

    def slowest(n: int) -> float:
        return max(threads.map(run, [n] * execution.threads))

    seconds = measure(slowest, sizes)
    narrow.shrink()
    return Curve(seconds=seconds, batch=smallest_worthwhile(seconds) if max_batch == "auto" else max_batch)


def _log(model: Model) -> None:
    measured, streams = model.measured, "no streams"
    if model.streams:
        count = model.streams.count
        streams = f"{count} streams of {measured.crowd.batch}: {measured.crowd.rate(count):.0f} images/s"
    logger.info(
        "model %s version %d: %s on %s, max_batch %d; %s; by precision %s; %s",
        *(model.name, model.version, model.precision, PROVIDERS[model.provider].name, measured.alone.batch),
        ", ".join(f"{n}: {1e3 * s:.3g} ms, {n / s:.0f} images/s" for n, s in measured.alone.seconds.items()),
        ", ".join(f"{name} {speed:.0f} images/s" for name, speed in measured.speeds.items()),
        streams,
    )
