"""Which version is live: load it off the hot path, verify it, swap, drain the old one."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from app.batcher import Batcher
from app.errors import NoModel, VersionLive, VersionNotFound, VersionUnusable
from app.model import Model
from training.contract import MANIFEST_FILE, ContractError, ModelRepository

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadFailure:
    """A version that should be live and can not be."""

    version: int | None
    reason: str
    at: datetime


class Deployment:
    """A model with its batcher; ends when it is retired and its last request is answered."""

    def __init__(self, model: Model, delay: float) -> None:
        self.model = model
        self.batcher = Batcher(model.run, model.shape, model.max_batch, model.padded, delay)
        self._leases = 0
        self._retired = False

    @contextlib.contextmanager
    def lease(self) -> Iterator["Deployment"]:
        """Keeps the deployment running for the length of the block."""
        self._leases += 1
        try:
            yield self
        finally:
            self._leases -= 1
            self._end_if_unused()

    def retire(self) -> None:
        """Ends the deployment now, or with its last lease."""
        self._retired = True
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._retired and not self._leases:
            self.batcher.close()  # its thread held the last reference; the session goes with it


class Serving:
    """Follows the repository's ACTIVE, from entering the context to leaving it.

    `load` makes a version ready to run, in a thread; it raises on one that is not fit to be served.
    """

    def __init__(
        self,
        repository: ModelRepository,
        load: Callable[[int], Model],
        poll_interval: float = 1.0,
        batch_delay: float = 0.0,
    ) -> None:
        self.repository = repository
        self.live: Deployment | None = None
        self.failure: LoadFailure | None = None
        self.loading = False
        self.draining = False
        self._load = load
        self._poll_interval = poll_interval
        self._batch_delay = batch_delay
        self._swapping = asyncio.Lock()  # one load at a time: each needs memory for a second model
        self._failed: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.draining = True
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        if self.live:
            self.live.batcher.close()  # whatever still holds a lease has had its time
            await asyncio.to_thread(self.live.batcher.join)
            self.live = None

    @property
    def ready(self) -> bool:
        """A verified, warm model is live and the service is not about to end."""
        return self.live is not None and not self.draining

    def deployment(self) -> Deployment:
        """What serves a request that comes now. Raises NoModel."""
        if self.live is None:
            raise NoModel(self._why_none())
        return self.live

    async def refresh(self) -> None:
        """Makes the version that ACTIVE names live, when it is not; a failure keeps what is live and is noted.

        The same version in the same state is not tried twice.
        """
        async with self._swapping:
            try:
                found = await asyncio.to_thread(self._find_active)
            except (ContractError, OSError) as error:
                self._note(None, error)
                return
            if found is None or found == self._failed:
                return
            version = found[0]
            if self.live and self.live.model.version == version:
                self.failure = self._failed = None  # ACTIVE came back to what serves
                return
            try:
                self._go_live(await self._load_in_thread(version))
            except Exception as error:  # whatever it is, the service goes on with what it has
                self._failed = found
                self._note(version, error)

    async def activate(self, version: int) -> None:
        """Loads and verifies a version, writes ACTIVE, then swaps; ACTIVE is not touched by a version that fails.

        Raises VersionNotFound, VersionUnusable.
        """
        async with self._swapping:
            await self.require(version)
            model = None
            if not (self.live and self.live.model.version == version):
                try:
                    model = await self._load_in_thread(version)
                except Exception as error:  # whatever makes it unusable is the answer
                    log.exception("version %d can not be activated", version)
                    raise VersionUnusable(f"version {version} can not be served: {self.reason(error)}") from error
            await asyncio.to_thread(self.repository.activate, version)
            self.failure = self._failed = None
            if model:
                self._go_live(model)

    async def delete(self, version: int) -> None:
        """Removes a version from the repository. Raises VersionNotFound, VersionLive."""
        async with self._swapping:
            await self.require(version)
            if self.live and self.live.model.version == version:
                raise VersionLive(f"version {version} serves requests; activate another one first")
            try:
                await asyncio.to_thread(self.repository.delete, version)
            except ContractError as error:
                raise VersionLive(self.reason(error)) from None

    async def _follow(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_interval)

    def _find_active(self) -> tuple[int, int] | None:
        """The version that ACTIVE names and its manifest's time of change: when that changes, it is tried again."""
        version = self.repository.active()
        if version is None:
            return None
        try:
            return version, (self.repository.folder / str(version) / MANIFEST_FILE).stat().st_mtime_ns
        except FileNotFoundError:
            return version, 0

    async def _load_in_thread(self, version: int) -> Model:
        self.loading = True
        try:
            return await asyncio.to_thread(self._load, version)
        finally:
            self.loading = False

    def _go_live(self, model: Model) -> None:
        old, self.live = self.live, Deployment(model, self._batch_delay)
        self.failure = self._failed = None
        log.info("version %d is live%s", model.version, f", after version {old.model.version}" if old else "")
        if old:
            old.retire()

    async def require(self, version: int) -> None:
        versions = await asyncio.to_thread(self.repository.versions)
        if version not in versions:
            has = ", ".join(map(str, versions)) or "none"
            raise VersionNotFound(f"model {self.repository.name!r} has no version {version}, it has {has}")

    def _note(self, version: int | None, error: Exception) -> None:
        reason = self.reason(error)
        if self.failure is None or (self.failure.version, self.failure.reason) != (version, reason):
            self.failure = LoadFailure(version, reason, datetime.now(UTC))
            log.error("version %s can not be served: %s", version, reason, exc_info=error)

    def reason(self, error: Exception) -> str:
        """What went wrong, with paths from the repository's root on."""
        text = str(error) or type(error).__name__
        return text.replace(f"{self.repository.folder.parent}/", "")

    def _why_none(self) -> str:
        if self.failure:
            return f"version {self.failure.version} can not be served: {self.failure.reason}"
        if self.loading:
            return "the model is being loaded; try again in a moment"
        return (
            f"no version of {self.repository.name!r} is active: train one with `python -m training train DIR`, "
            "or make one with `make starter`; it is served as soon as it is published"
        )
