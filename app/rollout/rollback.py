"""Going back from a version that is not fit to be served."""

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.execution.model import Model
from app.inference.probation import Probation
from training.contract.repository import ModelRepository, VersionMissing
from training.errors import ContractError

logger = logging.getLogger(__name__)

Cause = Literal["load", "errors"]

# a file that should lie in a version and does not; all other numbers are the machine's, as EMFILE or ENOSPC
VERSIONS_FAULT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
# ONNX Runtime has no exception of its own for these
OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "out of memory")


@dataclass(frozen=True)
class RollbackPolicy:
    """Whether the service goes back by itself, and for how many failed images of a new version's first ones.

    `error_rate` is a fraction of `probation_images`; 0 of these is no probation.
    """

    enabled: bool = True
    probation_images: int = 200
    error_rate: float = 0.05

    def probation(self, on_failure: Callable[[Probation], None]) -> Probation | None:
        """For a version that takes over from another one."""
        if not (self.enabled and self.probation_images):
            return None
        return Probation(self.probation_images, self.error_rate, on_failure)


@dataclass(frozen=True)
class Rollback:
    """The service went back by itself."""

    from_version: int
    to_version: int
    reason: str
    at: datetime


def is_momentary(error: BaseException) -> bool:
    """Whether the moment is to blame and not the version: too many open files, a full disk or memory, and the like.

    A version's folder that is not there counts too: on a file system that several machines share, or that is copied
    from another one, ACTIVE may be in sight before it. Going back would take a good version from all of them.
    """
    if isinstance(error, MemoryError | VersionMissing):
        return True
    if isinstance(error, OSError) and error.errno is not None and error.errno not in VERSIONS_FAULT:
        return True
    if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_momentary(error.__cause__)


@dataclass(frozen=True)
class WayBack:
    """Where to. `model` is None where that version serves already; `written` says whether ACTIVE names it now."""

    to: int
    model: Model | None
    written: bool


def go_back(
    repository: ModelRepository,
    load: Callable[[int], Model],
    version: int,
    reason: str,
    *,
    serving: int | None,
    describe: Callable[[Exception], str],
) -> WayBack | None:
    """Sets ACTIVE back from a bad version, to the one that serves or else to the nearest earlier one that loads.

    None when there is no such version, and when another process has moved ACTIVE meanwhile. Loads, so call it off the
    event loop. Raises ContractError when the history can not be read, and what `load` raises by fault of the moment.
    """
    bad = {version: reason}
    model = None
    if serving is None and (model := _load_earlier(repository, load, bad, describe)) is None:
        logger.error("there is no earlier version to go back to from version %d: %s", version, reason)
        return None
    to = model.version if model else serving
    try:
        active = repository.roll_back(to, bad=bad)
    except (ContractError, OSError):
        logger.exception("ACTIVE can not be set back from version %d to version %s", version, to)
        # a repository that may only be read: better an earlier version than none
        return WayBack(model.version, model, written=False) if model else None
    return WayBack(active, model, written=True) if active == to else None


def _load_earlier(
    repository: ModelRepository, load: Callable[[int], Model], bad: dict[int, str], describe: Callable[[Exception], str]
) -> Model | None:
    """The nearest earlier version that loads; those that do not are added to `bad`."""
    for version in repository.predecessors():
        try:
            return load(version)
        except Exception as error:
            if is_momentary(error):
                raise
            bad[version] = describe(error)
            logger.error("version %d can not be served either: %s", version, bad[version])
    return None
