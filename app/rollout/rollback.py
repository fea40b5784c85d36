"""The way back from a version that is not fit to be served."""

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.errors import LoadTimedOut
from app.execution.model import Model
from app.inference.probation import Probation
from training.contract.repository import ModelRepository, VersionMissing
from training.errors import StorageUnavailable, TrainingError

logger = logging.getLogger(__name__)

Cause = Literal["load", "errors"]

# errors of a version that lacks a file, or has another thing in its place; all other numbers are the machine's, like
# EMFILE or ENOSPC
VERSIONS_FAULT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EFBIG}
# words for which ONNX Runtime has no exception of its own
OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "out of memory")


@dataclass(frozen=True)
class RollbackPolicy:
    """A choice: whether the service goes back automatically, and after how many failed images of a new version.

    More than the fraction `error_rate` of its first `probation_images` is too many. With 0 `probation_images` there is
    no probation.
    """

    enabled: bool = True
    probation_images: int = 200
    error_rate: float = 0.05

    def probation(self, on_failure: Callable[[Probation], None]) -> Probation | None:
        """Returns the probation of a version that takes over from another one, if there is one."""
        if not (self.enabled and self.probation_images):
            return None
        return Probation(self.probation_images, self.error_rate, on_failure)


@dataclass(frozen=True)
class Rollback:
    """An automatic return to an earlier version."""

    from_version: int
    to_version: int
    reason: str
    at: datetime


def is_momentary(error: BaseException) -> bool:
    """Whether the moment is to blame and not the version: too many open files, a full disk, no memory, and the like.

    A version's folder that is missing counts too. On a file system that several machines share, or that is a copy,
    ACTIVE may appear before the folder. Going back would take a good version from all of them. So does a load that took
    too long, unless it was one of its runs: the disk or the processors may be slow just now.
    """
    if isinstance(error, MemoryError | VersionMissing | LoadTimedOut | StorageUnavailable):
        return True
    if isinstance(error, OSError) and error.errno is not None and error.errno not in VERSIONS_FAULT:
        return True
    if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_momentary(error.__cause__)


@dataclass(frozen=True)
class WayBack:
    """The version to go back to. `model` is None where that version is live; `written` says whether ACTIVE names it."""

    to: int
    model: Model | None
    written: bool


def go_back(
    repository: ModelRepository,
    load: Callable[[int], Model],
    version: int,
    reason: str,
    *,
    live: int | None,
    describe: Callable[[Exception], str],
) -> WayBack | None:
    """Sets ACTIVE back from a bad version: to `live`, or if that is None, to the nearest earlier one that loads.

    Returns None when there is no such version, and when another process has moved ACTIVE meanwhile. It may load a
    version, so call it off the event loop. Raises ContractError when the history cannot be read, and what `load` raises
    when the moment is to blame.
    """
    bad = {version: reason}
    model = None
    if live is None and (model := _load_earlier(repository, load, bad, describe)) is None:
        logger.error("there is no earlier version to go back to from version %d: %s", version, reason)
        return None
    to = model.version if model else live
    try:
        active = repository.roll_back(to, bad=bad)
    except (TrainingError, OSError):
        logger.exception("ACTIVE cannot be set back from version %d to version %s", version, to)
        # a read-only repository: better an earlier version than none
        return WayBack(model.version, model, written=False) if model else None
    return WayBack(active, model, written=True) if active == to else None


def _load_earlier(
    repository: ModelRepository, load: Callable[[int], Model], bad: dict[int, str], describe: Callable[[Exception], str]
) -> Model | None:
    """Returns the nearest earlier version that loads, if any; adds those that do not to `bad`."""
    for version in repository.predecessors():
        try:
            return load(version)
        except Exception as error:
            if is_momentary(error):
                raise
            bad[version] = describe(error)
            logger.error("version %d cannot be served either: %s", version, bad[version])
    return None
