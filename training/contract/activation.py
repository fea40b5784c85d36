"""Records which version of a model is active, which ones were before, and which were taken back.

    ACTIVE     the active version's number
    HISTORY    [1, 2, 4]: the versions in the order of activation, the active one last; a rollback shortens it
    FAILURES   {"3": {"reason": "golden check: ...", "time": "..."}}

After a crash between two of the files ACTIVE is right, and HISTORY is either the old one or the new one. Nothing here
takes the repository's lock: ModelRepository does.

A file that is damaged, or that something else stands in for, is kept aside by the next activation, as
`HISTORY.damaged-20260102-030405`, and written anew: an activation says all that has to be known.
"""

import contextlib
import errno
import itertools
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from training.errors import ContractError, RepositoryUnreadable, words_of
from training.system.durable import write_atomically
from training.system.files import read_at_most

HISTORY_LENGTH = 100
MOST_BYTES = 2**20  # of one file; a version's number, 100 of them, a reason for each version
DIGITS = 18
# what the system says of a file that will not mend itself; with others, like EIO and EMFILE, the file may be good
DAMAGE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EFBIG, errno.ELOOP, errno.ENXIO}


class Failure(BaseModel):
    """The reason why a version was taken back, and when."""

    reason: str
    time: datetime


logger = logging.getLogger(__name__)

_HISTORY = TypeAdapter(Annotated[list[Annotated[int, Field(ge=1)]], FailFast()])
_FAILURES = TypeAdapter(dict[int, Failure])


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Raises RepositoryUnreadable when the block cannot read; a FileNotFoundError stays one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RepositoryUnreadable(f"{what} cannot be read: {words_of(error)}") from error


class Activations:
    """ACTIVE, HISTORY and FAILURES in a model's folder.

    Reading raises ContractError for a damaged one, RepositoryUnreadable for one that the system does not give.
    """

    def __init__(self, folder: Path) -> None:
        self._name = folder.name
        self._active = folder / "ACTIVE"
        self._history = folder / "HISTORY"
        self._failures = folder / "FAILURES"

    def active(self) -> int | None:
        """Returns the active version's number, or None before the first activation."""
        try:
            text = self._read(self._active).decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        if not is_version(text):
            raise ContractError(f"{self._name}/ACTIVE should hold a version number, it holds {text[:40]!r}")
        return int(text)

    def history(self, versions: Collection[int]) -> list[int]:
        """Returns the versions in the order of activation, the active one last; `versions` are the published ones.

        A repository without HISTORY is from a release that activated all it published: there the history is every
        version up to the active one.
        """
        active = self.active()
        try:
            history = _HISTORY.validate_json(self._read(self._history))
        except FileNotFoundError:
            history = sorted(v for v in versions if active is not None and v < active)
        except ValidationError as error:
            raise ContractError(
                f"{self._name}/HISTORY should hold a JSON list of versions: {first_of(error)}"
            ) from error
        if active is not None and history[-1:] != [active]:
            history.append(active)  # ACTIVE was edited by hand, or a crash came before HISTORY was written
        return history

    def failures(self) -> dict[int, Failure]:
        """Returns the versions that were taken back, and why."""
        try:
            return _FAILURES.validate_json(self._read(self._failures))
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise ContractError(
                f"{self._name}/FAILURES should hold versions and reasons as JSON: {first_of(error)}"
            ) from error

    def predecessors(self, versions: Collection[int]) -> list[int]:
        """Returns where a rollback may go, the nearest first: earlier versions that still exist and did not fail."""
        failed, active = self.failures(), self.active()
        earlier = dict.fromkeys(reversed(self.history(versions)))  # each once, at its latest activation
        return [v for v in earlier if v != active and v in versions and v not in failed]

    def activate(self, version: int, versions: Collection[int]) -> None:
        """Makes a version active and the newest of the history, and forgets its failure. Mends what is damaged."""
        self._set_damaged_aside()
        history = self.history(versions)
        self._write_history(history)  # after a crash it must not be guessed from `versions`
        self._write_failures({v: f for v, f in self.failures().items() if v != version})
        write_atomically(self._active, f"{version}\n")
        self._write_history(history if history[-1:] == [version] else [*history, version])

    def roll_back(self, version: int, versions: Collection[int], bad: Mapping[int, str]) -> None:
        """Makes an earlier version active and cuts the history back to it; `bad` says which versions failed and why."""
        now = datetime.now(UTC)
        self._write_failures(self.failures() | {v: Failure(reason=reason, time=now) for v, reason in bad.items()})
        history = self.history(versions)[:-1]
        known = [place for place, v in enumerate(history) if v == version]
        # before ACTIVE: after a crash here `history` appends the active version again, and nothing has happened
        self._write_history(history[: known[-1] + 1] if known else [*history, version])
        write_atomically(self._active, f"{version}\n")

    def forget(self, version: int) -> None:
        """Removes every trace of a version, since its number may be used again."""
        if (history := self.history([])) and version in history:
            self._write_history([v for v in history if v != version])
        if version in (failures := self.failures()):
            self._write_failures({v: f for v, f in failures.items() if v != version})

    def _read(self, path: Path) -> bytes:
        with reading(f"{self._name}/{path.name}"):
            return read_at_most(path, MOST_BYTES)

    def _set_damaged_aside(self) -> None:
        self._sets_aside(self._active, self.active)
        self._sets_aside(self._failures, self.failures)
        if self._sets_aside(self._history, lambda: self.history([])):
            # without the file every version up to the active one would have been active
            self._write_history([active] if (active := self.active()) else [])

    def _sets_aside(self, path: Path, read: Callable[[], object]) -> bool:
        """Renames a file that `read` cannot read, now or later. Whether there was one. Raises RepositoryUnreadable."""
        try:
            read()
            return False
        except ContractError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno not in DAMAGE:
                raise
            aside = _free_name(f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            path.rename(aside)
            logger.warning("%s; it is kept as %s and written anew", error, aside.name)
            return True

    def _write_history(self, history: list[int]) -> None:
        write_atomically(self._history, _HISTORY.dump_json(history[-HISTORY_LENGTH:]).decode() + "\n")

    def _write_failures(self, failures: dict[int, Failure]) -> None:
        if failures or self._failures.exists():
            write_atomically(self._failures, _FAILURES.dump_json(failures, indent=1).decode() + "\n")


def _free_name(name: str) -> Path:
    """Returns the path, with a number behind it where something has that name."""
    names = (Path(name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in names if not os.path.lexists(path))


def is_version(text: str) -> bool:
    """Whether a folder's name, or the text in ACTIVE, is a version's number."""
    return text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= DIGITS


def first_of(error: ValidationError) -> str:
    """Returns the first thing that is wrong: a file may have a million of them, each with its input."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place + ': ' if place else ''}{problem['msg']}"
