"""The live version: loaded and checked off the hot path, swapped in, drained when replaced, left when it is bad."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from app.errors import NoModel, VersionLive, VersionNotFound, VersionUnusable
from app.execution.model import Model
from app.execution.provider import PROVIDERS
from app.inference.deployment import Deployment
from app.inference.probation import Probation
from app.observability.metrics import Metrics
from app.observability.observation import Batch
from app.rollout.attempts import ActiveState, Attempts, LoadFailure, find_active
from app.rollout.rollback import Cause, Rollback, RollbackPolicy, go_back, is_momentary
from training.contract.manifest import GOLDEN_FILE
from training.contract.repository import ModelRepository, VersionActive
from training.errors import ContractError, StorageUnavailable, words_of

logger = logging.getLogger(__name__)


class Serving:
    """The live version of a model, which follows the repository's ACTIVE from entering the context to leaving it.

    `load` makes a version ready to run, in a thread; it raises when the version is not fit to be served. `observe` is
    called with each batch, in the thread that ran it. `poll_interval` and `batch_delay` are in seconds.
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
    ) -> None:
        self.repository = repository
        self.live: Deployment | None = None
        self.failure: LoadFailure | None = None
        self.rollback: Rollback | None = None  # the last one, until somebody activates a version
        self.loading = False
        self.settled = asyncio.Event()  # set when the first look at the repository is over, with its load
        self._load = load
        self._poll_interval = poll_interval
        self._batch_delay = batch_delay
        self._swapping = asyncio.Lock()  # one load at a time, since each needs memory for a second model
        self._attempts = Attempts(poll_interval)
        self._policy = policy
        self.metrics = metrics
        self._observe = observe
        self._leaving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        tasks = [task for task in (self._following, self._leaving) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.live:
            self.live.batcher.close()  # a request that still holds a lease has had its time
            await asyncio.to_thread(self.live.batcher.join)
            self.live = None

    def deployment(self) -> Deployment:
        """Returns the deployment for a request that comes now. Raises NoModel."""
        if self.live is None:
            raise NoModel(self.why_none(), private=self.failure is not None)
        return self.live

    async def refresh(self) -> None:
        """Makes the version that ACTIVE names live, unless it is; goes back from one that is not fit to be served.

        The live version stays meanwhile. The same version in the same state is not tried twice.
        """
        async with self._swapping:
            try:
                state = await asyncio.to_thread(find_active, self.repository)
            except (ContractError, OSError) as error:
                self._note(None, error)
                return
            if state is None or self._attempts.forbid(state):
                return
            if self.live and self.live.model.version == state.version:
                self._settle()  # ACTIVE came back to the live version
                return
            try:
                model = await asyncio.to_thread(self._try_load, state.version)
            except Exception as error:  # whatever it is, the live version goes on
                await self._load_failed(state, error)
            else:
                self._go_live(model)
                self._settle()

    async def activate(self, version: int) -> None:
        """Loads a version and checks it, writes ACTIVE, then swaps. A version that fails leaves ACTIVE as it is.

        Raises VersionNotFound, VersionUnusable, StorageUnavailable.
        """
        async with self._swapping:
            await self.require(version)
            model = None
            if not await asyncio.to_thread(self._serves, version):
                try:
                    model = await asyncio.to_thread(self._try_load, version)
                except Exception as error:  # whatever makes the version unusable is the answer
                    logger.exception("version %d cannot be activated", version)
                    raise VersionUnusable(f"version {version} cannot be served: {self.reason(error)}") from error
            with self._writing():
                await asyncio.to_thread(self.repository.activate, version)
            self.rollback = None
            if model:
                self._go_live(model)
            self._settle()

    async def delete(self, version: int) -> None:
        """Removes a version from the repository.

        Raises VersionNotFound, VersionLive, StorageUnavailable, ContractError where ACTIVE or its like is damaged.
        """
        async with self._swapping:
            await self.require(version)
            if self.live and self.live.model.version == version:
                raise VersionLive(f"version {version} serves requests; activate another one first")
            try:
                with self._writing():
                    await asyncio.to_thread(self.repository.delete, version)
            except VersionActive as error:
                raise VersionLive(self.reason(error)) from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises StorageUnavailable when the block cannot write: KServe mounts the repository read-only."""
        try:
            yield
        except OSError as error:
            raise StorageUnavailable(f"the model repository cannot be written: {words_of(error)}") from error

    async def _follow(self) -> None:
        while True:
            await self.refresh()
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

    def _try_load(self, version: int) -> Model:
        self.loading = True
        try:
            return self._load(version)
        except Exception:
            self.metrics.load_failures.inc()
            raise
        finally:
            self.loading = False

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
        momentary = is_momentary(error)
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

    def _fail_probation(self, probation: Probation) -> None:
        self._leaving = asyncio.create_task(self._leave(probation))

    async def _leave(self, probation: Probation) -> None:
        """Goes back from the live version, if it is still the one that failed its probation and ACTIVE names it."""
        async with self._swapping:
            if not (self.live and self.live.probation is probation):
                return
            version = self.live.model.version
            try:
                state = await asyncio.to_thread(find_active, self.repository)
                if state and state.version == version:
                    # else it would be loaded again where ACTIVE cannot be written
                    self._attempts.failed(state, momentary=False)
                    await self._go_back(version, probation.reason, "errors")
            except Exception:  # it goes on serving, and its next images judge it
                logger.exception("no way back from version %d, though %s", version, probation.reason)
                probation.restart()

    async def _go_back(self, version: int, reason: str, cause: Cause, live: int | None = None) -> None:
        way = await asyncio.to_thread(
            go_back, self.repository, self._try_load, version, reason, live=live, describe=self.reason
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
        versions = await asyncio.to_thread(self.repository.versions)
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
