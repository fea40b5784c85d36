"""The failed tries to load the version that ACTIVE names, and when to try again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from training.contract.repository import ModelRepository

LONGEST_PAUSE_S = 60


@dataclass(frozen=True)
class ActiveState:
    """The version that ACTIVE names, and its manifest's stamp: a version whose manifest changed is a new one."""

    version: int
    stamp: int


def find_active(repository: ModelRepository) -> ActiveState | None:
    """Returns None when no version is active. Raises ContractError when ACTIVE cannot be read."""
    version = repository.active()
    return None if version is None else ActiveState(version, repository.manifest_stamp(version))


@dataclass(frozen=True)
class LoadFailure:
    """A version that should be live and cannot be."""

    version: int | None
    reason: str
    at: datetime


class Attempts:
    """A memory of the state that failed last. `pause`, in seconds, doubles while the same state goes on failing."""

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_pause = pause
        self._pause = pause
        self._clock = clock
        self._state: ActiveState | None = None
        self._until = 0.0

    def forbid(self, state: ActiveState) -> bool:
        """Whether this state should not be tried: not yet, or never again."""
        return state == self._state and self._clock() < self._until

    def again(self, state: ActiveState) -> bool:
        """Whether this state is the one that failed last."""
        return state == self._state

    def failed(self, state: ActiveState, *, momentary: bool) -> None:
        """Notes a failure. A `momentary` one is tried again after a pause, any other never."""
        self._pause = min(LONGEST_PAUSE_S, 2 * self._pause) if self.again(state) else self._first_pause
        self._state = state
        self._until = self._clock() + self._pause if momentary else math.inf

    def clear(self) -> None:
        """Forgets the failure, so that any state may be tried."""
        self._state = None
