"""The live version: loaded and checked off the hot path, swapped in, drained when replaced, left when it is bad."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from app.errors import (
    LoadTimedOut,
    NoModel,
    RolloutBusy,
    RunTimedOut,
    VersionLive,
    VersionNotFound,
    VersionUnusable,
)
from app.execution.model import Model
from app.execution.provider import PROVIDERS
from app.inference.deployment import Deployment
from app.inference.probation import Probation
from app.observability.metrics import Metrics
from app.observability.observation import Batch
from app.rollout.attempts import ActiveState, Attempts, LoadFailure, find_active
from app.rollout.bounded import DISK_S, LOAD_S, Loads, on_disk, until
from app.rollout.rollback import Cause, Rollback, RollbackPolicy, go_back, is_momentary
from app.watch import Watch
from training.contract.manifest import GOLDEN_FILE
from training.contract.repository import ModelRepository, VersionActive
from training.errors import ContractError, StorageUnavailable, words_of

P = ParamSpec("P")
R = TypeVar("R")

RETRY_S = 5

logger = logging.getLogger(__name__)


class Serving:
    """The live version of a model, which follows the repository's ACTIVE from entering the context to leaving it.

    `load` makes a version ready to run, in a thread; it raises when the version is not fit to be served. `observe` is
    called with each batch, in the thread that ran it. `poll_interval`, `batch_delay` and `load_seconds`, the limit of a
    load, are in seconds. Once `closing` is set, nobody waits for a turn any more.
    """

    def __init__(
        self,
        repository: ModelRepository,
        load: Callable[[int], Model],
        poll_interval: float,
        batch_delay: float,
        policy: RollbackPolicy,
        metrics: Metrics,
        observe: Callable[[Batch], None],
        watch: Watch | None = None,
        load_seconds: float = LOAD_S,
        closing: asyncio.Event | None = None,
    ) -> None:
        self.repository = repository
        self.live: Deployment | None = None
        self.failure: LoadFailure | None = None
        self.rollback: Rollback | None = None  # the last one, until somebody activates a version
        self.settled = asyncio.Event()  # set when the first look at the repository is over, with its load
        self._watch = watch or Watch()
        self._loads = Loads(load, metrics.load_failures.inc, self._watch, load_seconds)
        self._disk = on_disk()
        self._closing = closing or asyncio.Event()
        self._poll_interval = poll_interval
        self._batch_delay = batch_delay
        self._swapping = asyncio.Lock()  # one load at a time, since each needs memory for a second model
        self._attempts = Attempts(poll_interval)
        self._policy = policy
        self.metrics = metrics
        self._observe = observe
        self._leaving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beat = self._watch.begin("follower", "the follower of ACTIVE", DISK_S)
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        tasks = [task for task in (self._following, self._leaving) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watch.end(self._beat)
        if self.live:
            self.live.batcher.close()  # a request that still holds a lease has had its time
            await asyncio.to_thread(self.live.batcher.join)
            self.live = None

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded."""
        return self._loads.version is not None

    def deployment(self) -> Deployment:
        """Returns the deployment for a request that comes now. Raises NoModel."""
        if self.live is None:
            raise NoModel(self.why_none(), private=self.failure is not None)
        return self.live

    def rate(self) -> float:
        """Returns the live version's images a second when many wait, as its load measured them; 0 without one."""
        return self.live.model.rate if self.live else 0.0

    async def refresh(self) -> None:
        """Makes the version that ACTIVE names live, unless it is; goes back from one that is not fit to be served.

        The live version stays meanwhile. The same version in the same state is not tried twice.
        """
        async with self._swapping:
            try:
                state = await self._on_disk("the reading of ACTIVE", find_active, self.repository)
            except Exception as error:  # whatever ACTIVE holds, the live version goes on
                self._note(None, error)
                return
            if state is None or self._attempts.forbid(state):
                return
            if self.live and self.live.model.version == state.version:
                self._settle()  # ACTIVE came back to the live version
                return
            try:
                model = await asyncio.to_thread(self._loads.load, state.version)
            except Exception as error:  # whatever it is, the live version goes on
                await self._load_failed(state, error)
            else:
                self._go_live(model)
                self._settle()

    async def activate(self, version: int) -> None:
        """Loads a version and checks it, writes ACTIVE, then swaps. A version that fails leaves ACTIVE as it is.

        Raises VersionNotFound, VersionUnusable, LoadTimedOut, RolloutBusy, StorageUnavailable.
        """
        async with self._turn():
            await self.require(version)
            model = None
            if not await asyncio.to_thread(self._serves, version):
                try:
                    model = await asyncio.to_thread(self._loads.load, version)
                except StorageUnavailable:
                    raise
                except (LoadTimedOut, RunTimedOut) as error:
                    raise LoadTimedOut(f"version {version} cannot be loaded: {self.reason(error)}") from error
                except Exception as error:  # whatever makes the version unusable is the answer
                    logger.exception("version %d cannot be activated", version)
                    raise VersionUnusable(f"version {version} cannot be served: {self.reason(error)}") from error
            with self._writing():
                await self._on_disk("the writing of ACTIVE", self.repository.activate, version)
            self.rollback = None
            if model:
                self._go_live(model)
            self._settle()

    async def delete(self, version: int) -> None:
        """Removes a version from the repository.

        Raises VersionNotFound, VersionLive, RolloutBusy, StorageUnavailable, ContractError where ACTIVE or its like is
        damaged.
        """
        async with self._turn():
            await self.require(version)
            if self.live and self.live.model.version == version:
                raise VersionLive(f"version {version} serves requests; activate another one first")
            try:
                with self._writing():
                    await self._on_disk("the deletion", self.repository.delete, version)
            except VersionActive as error:
                raise VersionLive(self.reason(error)) from None

    async def _on_disk(self, what: str, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        call = functools.partial(function, *arguments, **named)
        return await asyncio.to_thread(self._disk.call, what, call)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises StorageUnavailable when the block cannot write: KServe mounts the repository read-only."""
        try:
            yield
        except OSError as error:
            raise StorageUnavailable(f"the model repository cannot be written: {words_of(error)}") from error

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Holds the turn to load. Raises RolloutBusy when that takes longer than a load may, NoModel in a drain."""
        try:
            async with until(self._closing, NoModel("the service is shutting down")):
                async with asyncio.timeout(self._loads.seconds):
                    await self._swapping.acquire()
        except TimeoutError:
            what = f"version {self._loads.version} is being loaded" if self.loading else "another version has its turn"
            raise RolloutBusy(f"{what}; try again", headers={"Retry-After": str(RETRY_S)}) from None
        try:
            yield
        finally:
            self._swapping.release()

    async def _follow(self) -> None:
        while True:
            # a load in another task, which this waits for, then one of its own
            self._watch.goes_on(self._beat, "the follower of ACTIVE", DISK_S + 2 * self._loads.seconds)
            try:
                await self.refresh()
            except Exception as error:  # the next look may find what this one could not deal with
                self._note(None, error)
            self._watch.goes_on(self._beat, "the follower of ACTIVE", DISK_S + self._poll_interval)
            if not (self.settled.is_set() or self.live or self.failure):
                logger.warning("nothing is served from %s yet: %s", self.repository.root, self.why_none())
            self.settled.set()
            await asyncio.sleep(self._poll_interval)

    def _serves(self, version: int) -> bool:
        """Whether the version is live as it lies on the disk: its files may have been replaced under its number."""
        model = self.live.model if self.live else None
        if model is None or model.version != version:
            return False
        try:
            files = [name for name in model.manifest.files if name == GOLDEN_FILE or name.endswith(".onnx")]
            self.repository.verify_files(version, files)
            return self.repository.manifest(version) == model.manifest
        except ContractError:  # a load says what is wrong
            return False

    def _go_live(self, model: Model, *, proven: bool = False) -> None:
        old = self.live
        # at the start of the process there is nothing to go back to: the version before was live in another process
        probation = self._policy.probation(self._fail_probation) if old and not proven else None
        self.live = Deployment(model, self._batch_delay, probation, self._observe)
        self.metrics.show_model(model.name, model.version, model.precision, PROVIDERS[model.provider].name)
        logger.info("version %d is live%s", model.version, f", after version {old.model.version}" if old else "")
        if old:
            self.metrics.swaps.inc()
            old.retire()

    def _settle(self) -> None:
        """Notes that the live version is the one that ACTIVE names."""
        self.failure = None
        self._attempts.clear()

    async def _load_failed(self, state: ActiveState, error: Exception) -> None:
        momentary = is_momentary(error) and not (isinstance(error, LoadTimedOut) and self._attempts.again(state))
        self._note(state.version, error)
        self._attempts.failed(state, momentary=momentary)
        if momentary or not self._policy.enabled:
            return
        live = self.live.model.version if self.live else None
        try:
            await self._go_back(state.version, self.reason(error), "load", live)
        except Exception as second:  # it counts as no way back
            logger.exception("no way back from version %d", state.version)
            self._attempts.failed(state, momentary=is_momentary(second))

    def set_back(self, reason: str) -> None:
        """Sets ACTIVE back before this process ends since something hangs, so that the next one serves what served.

        From a version that is being loaded beside the live one, or from the live one while it is on probation. It waits
        for the repository's lock. May be called in any thread.
        """
        live, loading = self.live, self._loads.version
        if not (live and self._policy.enabled):
            return
        if loading not in (None, live.model.version):
            bad, to = loading, live.model.version
        elif live.probation and live.probation.lasts:
            bad, to = live.model.version, None
        else:
            return
        target = self.repository.roll_back(to, bad={bad: reason})
        logger.error("ACTIVE was set back from version %d to version %d: %s", bad, target, reason)

    def _fail_probation(self, probation: Probation) -> None:
        self._leaving = asyncio.create_task(self._leave(probation))

    async def _leave(self, probation: Probation) -> None:
        """Goes back from the live version, if it is still the one that failed its probation and ACTIVE names it."""
        async with self._swapping:
            if not (self.live and self.live.probation is probation):
                return
            version = self.live.model.version
            try:
                state = await self._on_disk("the reading of ACTIVE", find_active, self.repository)
                if state and state.version == version:
                    # else it would be loaded again where ACTIVE cannot be written
                    self._attempts.failed(state, momentary=False)
                    await self._go_back(version, probation.reason, "errors")
            except Exception:  # it goes on serving, and its next images judge it
                logger.exception("no way back from version %d, though %s", version, probation.reason)
                probation.restart()

    async def _go_back(self, version: int, reason: str, cause: Cause, live: int | None = None) -> None:
        way = await asyncio.to_thread(
            go_back, self.repository, self._loads.load, version, reason, live=live, describe=self.reason
        )
        if way is None:
            return
        if way.model:
            self._go_live(way.model, proven=True)
        if way.written:
            self._settle()
        self.rollback = Rollback(version, way.to, reason, datetime.now(UTC))
        self.metrics.rollbacks.labels(cause).inc()
        logger.error("went back from version %d to version %d: %s", version, way.to, reason)

    async def require(self, version: int) -> None:
        """Raises VersionNotFound when the repository does not have this version."""
        versions = await self._on_disk("the listing of the versions", self.repository.versions)
        if version not in versions:
            has = ", ".join(map(str, versions)) or "none"
            raise VersionNotFound(f"model {self.repository.name!r} has no version {version}, it has {has}")

    def _note(self, version: int | None, error: Exception) -> None:
        reason = self.reason(error)
        if self.failure is None or (self.failure.version, self.failure.reason) != (version, reason):
            self.failure = LoadFailure(version, reason, datetime.now(UTC))
            logger.error("version %s cannot be served: %s", version, reason, exc_info=error)

    def reason(self, error: Exception) -> str:
        """Returns the error's message, with paths that begin at the repository's root."""
        return self.repository.shorten(str(error) or type(error).__name__)

    def why_none(self) -> str:
        """Returns the reason why no version is live, and what to do."""
        if self.failure:
            return f"version {self.failure.version} cannot be served: {self.failure.reason}"
        if self.loading:
            return "the model is being loaded; try again in a moment"
        return (
            f"no version of {self.repository.name!r} is active: train one with `resnext train DIR`, "
            "or make one with `make starter`; it is served as soon as it is published"
        )
