"""Calls that may never end, loads above all: whoever waits for one waits for a bounded time."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from app.errors import LoadTimedOut, ServiceError
from app.execution.model import Model
from app.watch import Watch
from training.errors import StorageUnavailable
from training.system.threads import within

R = TypeVar("R")

LOAD_S = 300.0
DISK_S = 30.0  # that the repository may take to answer: longer than the wait for its lock
MOST_HANGING = 3  # two loads of a version, and one of the version before it


class Bounded:
    """Calls in threads of their own, which are left to themselves after `seconds`: nothing can end them.

    While MOST_HANGING of them go on no other begins, since each may hold the memory of a model.
    """

    def __init__(self, seconds: float, error: Callable[[str], Exception]) -> None:
        self.seconds = seconds
        self._error = error
        self._under_way: dict[object, str] = {}
        self._left: set[object] = set()

    def call(self, what: str, function: Callable[[], R]) -> R:
        """Returns what the function returns, or raises what it raises. `what` names the call.

        Raises the error when it takes too long.
        """
        if len(hanging := [name for call, name in [*self._under_way.items()] if call in self._left]) >= MOST_HANGING:
            raise self._error(f"only a restart helps: {' and '.join(hanging)} have not ended")
        call = object()
        self._under_way[call] = what

        def run() -> R:
            try:
                return function()
            finally:
                del self._under_way[call]
                self._left.discard(call)

        try:
            return within(self.seconds, run)
        except TimeoutError:
            self._left.add(call)
            raise self._error(f"{what} has not ended in {self.seconds:g} s") from None


class Loads:
    """A loader of versions. It loads one at a time.

    `load` makes a version ready to run. `failed` is called for each load that fails. The watch knows of a load that was
    left to itself.
    """

    def __init__(
        self, load: Callable[[int], Model], failed: Callable[[], None], watch: Watch, seconds: float = LOAD_S
    ) -> None:
        self.version: int | None = None  # that is being loaded
        self.seconds = seconds
        self._load = load
        self._failed = failed
        self._watch = watch
        self._bounded = Bounded(seconds, LoadTimedOut)

    def load(self, version: int) -> Model:
        """Loads a version. Raises LoadTimedOut, and what the load raises."""
        what = f"the load of version {version}"
        self.version = version
        try:
            return self._bounded.call(what, functools.partial(self._watched, what, version))
        except Exception:
            self._failed()
            raise
        finally:
            self.version = None

    def _watched(self, what: str, version: int) -> Model:
        with self._watch.begin("load", what, self.seconds):
            return self._load(version)


def on_disk() -> Bounded:
    """Returns calls that read or write the model repository. They raise StorageUnavailable, as for a dead mount."""
    return Bounded(DISK_S, lambda words: StorageUnavailable(f"the model repository does not answer: {words}"))


@contextlib.asynccontextmanager
async def until(closing: asyncio.Event, error: ServiceError) -> AsyncIterator[None]:
    """Cancels the block when the event is set, and raises the error in its place."""
    scope = asyncio.timeout(None)

    async def watch() -> None:
        await closing.wait()
        scope.reschedule(0)

    watcher = asyncio.create_task(watch())
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():  # it is the block's own
            raise
        raise error from None
    finally:
        watcher.cancel()
