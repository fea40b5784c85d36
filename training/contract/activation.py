"""Records which version of a model is active, which ones were before, and which were taken back.

    ACTIVE     the active version's number
    HISTORY    [1, 2, 4]: the versions in the order of activation, the active one last; a rollback shortens it
    FAILURES   {"3": {"reason": "golden check: ...", "time": "..."}}

After a crash between two of the files ACTIVE is right, and HISTORY is either the old one or the new one. Nothing here
takes the repository's lock: ModelRepository does.
"""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from training.errors import ContractError
from training.system.durable import write_atomically
from training.system.files import read_regular

HISTORY_LENGTH = 100
VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Failure(BaseModel):
    """The reason why a version was taken back, and when."""

    reason: str
    time: datetime


_HISTORY = TypeAdapter(list[int])
_FAILURES = TypeAdapter(dict[int, Failure])


class Activations:
    """ACTIVE, HISTORY and FAILURES in a model's folder. Reading a damaged one raises ContractError."""

    def __init__(self, folder: Path) -> None:
        self._active = folder / "ACTIVE"
        self._history = folder / "HISTORY"
        self._failures = folder / "FAILURES"

    def active(self) -> int | None:
        """Returns the active version's number, or None before the first activation."""
        try:
            text = read_regular(self._active).decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        if not is_version(text):
            raise ContractError(f"{self._active} should hold a version number, it holds {text[:40]!r}")
        return int(text)

    def history(self, versions: Collection[int]) -> list[int]:
        """Returns the versions in the order of activation, the active one last; `versions` are the published ones.

        A repository without HISTORY is from a release that activated all it published: there the history is every
        version up to the active one.
        """
        active = self.active()
        try:
            history = _HISTORY.validate_json(read_regular(self._history))
        except FileNotFoundError:
            history = sorted(v for v in versions if active is not None and v < active)
        except ValidationError as error:
            raise ContractError(f"{self._history} should hold a JSON list of versions: {error}") from error
        if active is not None and history[-1:] != [active]:
            history.append(active)  # ACTIVE was edited by hand, or a crash came before HISTORY was written
        return history

    def failures(self) -> dict[int, Failure]:
        """Returns the versions that were taken back, and why."""
        try:
            return _FAILURES.validate_json(read_regular(self._failures))
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise ContractError(f"{self._failures} should hold versions and reasons as JSON: {error}") from error

    def predecessors(self, versions: Collection[int]) -> list[int]:
        """Returns where a rollback may go, the nearest first: earlier versions that still exist and did not fail."""
        failed, active = self.failures(), self.active()
        earlier = dict.fromkeys(reversed(self.history(versions)))  # each once, at its latest activation
        return [v for v in earlier if v != active and v in versions and v not in failed]

    def activate(self, version: int, versions: Collection[int]) -> None:
        """Makes a version active and the newest of the history, and forgets its failure."""
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

    def _write_history(self, history: list[int]) -> None:
        write_atomically(self._history, _HISTORY.dump_json(history[-HISTORY_LENGTH:]).decode() + "\n")

    def _write_failures(self, failures: dict[int, Failure]) -> None:
        if failures or self._failures.exists():
            write_atomically(self._failures, _FAILURES.dump_json(failures, indent=1).decode() + "\n")


def is_version(text: str) -> bool:
    """Whether a folder's name, or the text in ACTIVE, is a version's number: at most nine digits."""
    return VERSION.fullmatch(text) is not None
