"""The choice of precision: a version is served in the fastest one on this machine that passes its checks."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from app.errors import RunTimedOut
from app.execution.latency import fastest_run
from app.execution.measured import Measured
from app.execution.opened import Opened
from app.execution.package import ModelError, Package
from app.execution.provider import PROVIDERS, Provider
from app.execution.session import Execution
from training.contract.manifest import Manifest, Precision
from training.system.memory import trim_heap

logger = logging.getLogger(__name__)

WORTHWHILE = 1.1  # times as fast that a lower precision has to be: it costs accuracy
TIMED_RUNS = 10  # in 0.1 s at most; of 3, the first second of a start made INT8 on OpenVINO look slower than float32


class Choice(NamedTuple):
    """A file that passed its checks, and images/s of each precision that was tried."""

    opened: Opened
    speeds: dict[Precision, float]


def allowed(manifest: Manifest, precision: Precision | Literal["auto"], provider: Provider) -> list[Precision]:
    """Returns the precisions to try, the lower first. Raises ModelError when the version has none of them."""
    wanted = PROVIDERS[provider].precisions if precision == "auto" else (precision,)
    if found := [name for name in wanted if name in manifest.variants]:
        return found
    has = ", ".join(manifest.variants) or "none"
    raise ModelError(f"RESNEXT_PRECISION is {precision}, version {manifest.version} has {has}")


def choose(package: Package, execution: Execution, known: Measured | None) -> Choice:
    """Chooses the precision by what is `known` of the network, else by trial. Raises ModelError when none is fit."""
    if known:
        precisions = sorted(package.precisions, key=lambda precision: precision != known.precision)
        return Choice(_first(package, execution, precisions), known.speeds)
    if PROVIDERS[package.provider].timed:
        return _fastest(package, execution)
    opened = _first(package, execution, package.precisions)
    return Choice(opened, {opened.precision: _speed(package, execution, opened)})


def _first(package: Package, execution: Execution, precisions: Sequence[Precision]) -> Opened:
    """Opens the first precision that passes its check."""
    precision, *others = precisions
    try:
        opened = package.open(execution, precision)
        package.check(opened)
    except (ModelError, RunTimedOut) as error:
        if not others:
            raise
        _leave_out(package, precision, error)
        opened = None
    return opened or _first(package, execution, others)  # out here the failed session is gone: the exception held it


def _fastest(package: Package, execution: Execution) -> Choice:
    """Opens the fastest precision that passes its check.

    On a CPU `execution` has one thread, and its CPU time counts: beside a training, INT8 looked slower than float32.
    """
    best: Opened | None = None
    speeds: dict[Precision, float] = {}
    for precision in package.precisions:
        opened = None  # before the next one is opened: each has its own copy of the weights
        trim_heap()
        try:
            opened = package.open(execution, precision)
            speed = _speed(package, execution, opened)
            if best is None or speed * WORTHWHILE > speeds[best.precision]:  # the higher precisions come later
                package.check(opened)
                best = opened
        except (ModelError, RunTimedOut) as error:
            if precision == package.precisions[-1] and best is None:
                raise
            _leave_out(package, precision, error)
        else:
            speeds[precision] = speed
    assert best
    return Choice(best, speeds)


def _speed(package: Package, execution: Execution, opened: Opened) -> float:
    """Returns images/s."""
    batch = min(PROVIDERS[package.provider].batch, package.sizes[-1])
    timer = execution.timer
    run = timer.cpu_seconds if package.provider == "cpu" else timer.seconds
    return batch / fastest_run(partial(run, opened), batch, TIMED_RUNS)


def _leave_out(package: Package, precision: Precision, error: Exception) -> None:
    logger.warning("%s of version %d is left out: %s", precision, package.manifest.version, error)
