"""Takes uploads into the datasets folder, by a process that unpacks and checks them."""

import asyncio
import contextlib
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from app.errors import DeadlineExceeded, IntakeBusy, IntakeFailed
from app.watch import Watch
from training.datasets.listing import DatasetError
from training.datasets.store import ARCHIVE_FILE, REPORT_FILE, REVISION_FOLDER, SUMMARY_FILE, DatasetStore, Summary
from training.errors import ArchiveError, ArchiveTooLarge, StorageFull, StorageUnavailable, TrainingError, storage_error
from training.system.child import ChildFailed, ChildKilled, run_child

P = ParamSpec("P")
T = TypeVar("T")

TURN_S = 30.0
END_S = 10.0  # that a process may take to end when it is asked to
WRITE_BYTES = 1024**2  # one hop to a thread writes this many
LOG_FILE = "log.txt"
FAILURES: dict[str, type[TrainingError]] = {
    error.__name__: error for error in (ArchiveTooLarge, ArchiveError, DatasetError, StorageFull, StorageUnavailable)
}

logger = logging.getLogger(__name__)


class Intake:
    """A queue of archives, which are unpacked and checked one at a time in a process of low priority.

    The process ends with the service and gets `environment`. Mounted datasets are checked one at a time in a queue of
    their own, so that a slow disk does not hold up uploads. Each waits up to `turn` seconds for its turn and may take
    `seconds`. `max_files` and `max_bytes` limit what an archive holds.
    """

    def __init__(
        self,
        store: DatasetStore,
        max_files: int,
        max_bytes: int,
        environment: Mapping[str, str],
        watch: Watch,
        seconds: float,
        turn: float = TURN_S,
    ) -> None:
        self._store = store
        self._environment = environment
        self._limits = (f"--max-files={max_files}", f"--max-bytes={max_bytes}")
        self._uploading = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._watch = watch
        self._seconds = seconds
        self._turn_seconds = turn

    @contextlib.asynccontextmanager
    async def staging(self, name: str) -> AsyncIterator[Path]:
        """Makes a folder for an archive and removes it after the block, with all that is not committed.

        The errors of the disk in the block are raised as StorageFull or StorageUnavailable. Raises DatasetMounted.
        """
        with storage_errors():
            await asyncio.to_thread(self._store.require_uploadable, name)
            async with _removed(await asyncio.to_thread(self._store.staging)) as work:
                yield work

    async def save(self, chunks: AsyncIterator[bytes], work: Path) -> None:
        """Writes an archive into its folder. Raises OSError, and what `chunks` does."""
        await _save(chunks, work / ARCHIVE_FILE)

    async def unpack(self, work: Path, name: str) -> None:
        """Unpacks and checks the archive in its folder. Cancelling it ends the process that does so.

        Raises ArchiveError, ArchiveTooLarge, DatasetError, IntakeBusy, IntakeFailed, DeadlineExceeded, StorageFull,
        StorageUnavailable.
        """
        async with self._turn(self._uploading):
            await self._run(work, "unpack", str(work), name, *self._limits)

    async def commit(self, work: Path, name: str) -> int:
        """Makes what was unpacked the current revision of a dataset and returns its number. Raises DatasetMounted."""
        return await asyncio.to_thread(self._store.commit, work / REVISION_FOLDER, name)

    async def look(self, name: str) -> tuple[Summary, bytes]:
        """Checks every file of a mounted dataset. Returns its summary, and its DatasetReport as JSON.

        Cancelling it ends the process that checks. Raises DatasetNotFound, DatasetError, IntakeBusy, IntakeFailed,
        DeadlineExceeded, StorageFull, StorageUnavailable.
        """
        with storage_errors():
            folder = (await asyncio.to_thread(self._store.resolve, name)).folder
            async with _removed(Path(await asyncio.to_thread(tempfile.mkdtemp))) as work:
                async with self._turn(self._looking):
                    await self._run(work, "check", str(folder), str(work))
                summary = Summary.model_validate_json((work / SUMMARY_FILE).read_bytes())
                return summary, await asyncio.to_thread((work / REPORT_FILE).read_bytes)

    @contextlib.asynccontextmanager
    async def _turn(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._turn_seconds):
                await lock.acquire()
        except TimeoutError:
            raise IntakeBusy(
                f"another dataset has been unpacked or checked for more than {self._turn_seconds:g} s; try again later",
                headers={"Retry-After": str(math.ceil(self._turn_seconds))},
            ) from None
        try:
            yield
        finally:
            lock.release()

    async def _run(self, work: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "training.datasets.intake", *arguments]
        try:
            with self._watch.begin("intake", "the intake of a dataset", self._seconds + END_S):
                async with asyncio.timeout(self._seconds):
                    await run_child(command, work / LOG_FILE, self._environment)
        except TimeoutError:
            raise DeadlineExceeded(f"unpacking and checking may take {self._seconds:g} s, and took longer") from None
        except ChildKilled as error:
            question = ": out of memory?" if str(error) == "SIGKILL" else ""
            logger.error("the process that unpacks and checks datasets was killed by %s", error)
            raise IntakeFailed(f"the process that unpacks and checks was killed by {error}{question}") from None
        except ChildFailed as error:
            _raise_failure(str(error), work / LOG_FILE)


def _raise_failure(last_words: str, log_file: Path) -> NoReturn:
    name, _, message = last_words.partition(" ")
    if name in FAILURES:
        raise FAILURES[name](message)
    logger.error("a dataset could not be unpacked and checked: %s", log_file.read_text(errors="replace"))
    raise IntakeFailed("the process that unpacks and checks has failed; the service's log says why")


async def _save(chunks: AsyncIterator[bytes], path: Path) -> None:
    file = await asyncio.to_thread(path.open, "wb")
    with file:
        gathered = bytearray()
        async for chunk in chunks:
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(gathered))
                gathered.clear()
                os.utime(path.parent)  # an unused staging folder is removed after a day
        await asyncio.to_thread(file.write, bytes(gathered))


@contextlib.asynccontextmanager
async def _removed(folder: Path) -> AsyncIterator[Path]:
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def on_disk(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function of the datasets folder in a thread.

    Raises StorageFull, StorageUnavailable, and what the function raises.
    """
    with storage_errors():
        return await asyncio.to_thread(function, *arguments, **named)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raises StorageFull or StorageUnavailable for the system's own error, which the log keeps."""
    try:
        yield
    except OSError as error:
        logger.error("the datasets folder: %s", error)
        raise storage_error("the datasets folder", error) from None
