"""What became of the attempt to load the version that ACTIVE names, and when it is tried again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from training.contract.manifest import MANIFEST_FILE
from training.contract.repository import ModelRepository

LONGEST_PAUSE_S = 60


@dataclass(frozen=True)
class ActiveState:
    """The version that ACTIVE names, and when its manifest changed (ns; 0 where it has none): a changed one is new."""

    version: int
    changed: int


def find_active(repository: ModelRepository) -> ActiveState | None:
    """None when no version is active. Raises ContractError when ACTIVE can not be read."""
    version = repository.active()
    if version is None:
        return None
    try:
        return ActiveState(version, (repository.folder / str(version) / MANIFEST_FILE).stat().st_mtime_ns)
    except FileNotFoundError:
        return ActiveState(version, 0)


@dataclass(frozen=True)
class LoadFailure:
    """A version that should be live and can not be."""

    version: int | None
    reason: str
    at: datetime


class Attempts:
    """Remembers the state that failed last. `pause` is in seconds; it doubles while the same state goes on failing."""

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_pause = pause
        self._pause = pause
        self._clock = clock
        self._state: ActiveState | None = None
        self._until = 0.0

    def forbid(self, state: ActiveState) -> bool:
        """Whether it is too early, or of no use, to try this state."""
        return state == self._state and self._clock() < self._until

    def failed(self, state: ActiveState, *, momentary: bool) -> None:
        """It is tried again after a pause where the moment was to blame, else not at all."""
        again = state == self._state
        self._pause = min(LONGEST_PAUSE_S, 2 * self._pause) if again else self._first_pause
        self._state = state
        self._until = self._clock() + self._pause if momentary else math.inf

    def clear(self) -> None:
        """Any state may be tried."""
        self._state = None
