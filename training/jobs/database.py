"""The jobs' database: SQLite, or PostgreSQL by URL. Coroutines ask it, and never wait for long."""

import asyncio
import contextlib
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, TypeVar

from training.jobs.job import JobsUnavailable
from training.jobs.settings import SharedSettings

if TYPE_CHECKING:
    from dbos import DBOSClient

APPLICATION = "resnext"
ASKING = 8  # questions at once
PATIENCE_S = 30.0  # how long a question waits for others and for a lock

T = TypeVar("T")


class JobsDatabase:
    """A connection, made at the first question and made again after the database was away, read-only or another one.

    Every question may raise JobsUnavailable. It waits up to `patience_s` for other questions and for a lock of SQLite,
    in all. Who stops waiting takes a question back whose turn has not come.
    """

    def __init__(self, settings: SharedSettings, patience_s: float = PATIENCE_S) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._client: DBOSClient | None = None
        self._opening = threading.BoundedSemaphore(1)
        self._asking = threading.BoundedSemaphore(ASKING)

    async def ask(self, question: Callable[["DBOSClient"], T]) -> T:
        """Answers a question in a thread of its own. The first one connects, and makes the tables where there are none.

        An executor's thread will not do: a process waits for those at its end, and a database may never answer.
        """
        future: Future[T] = Future()

        def answer() -> None:
            try:
                import training.jobs.engine  # noqa: F401  # the first import takes more than a second

                until = time.monotonic() + self._patience_s
                with _held(self._asking, until):
                    if not future.set_running_or_notify_cancel():
                        return  # who asked has been told that there is no answer
                    future.set_result(self._answer(question, until))
            except BaseException as error:
                with contextlib.suppress(InvalidStateError):  # cancelled while it waited for its turn
                    future.set_exception(error)

        threading.Thread(target=answer, name="jobs", daemon=True).start()
        return await asyncio.wrap_future(future)

    def _answer(self, question: Callable[["DBOSClient"], T], until: float) -> T:
        """Answers in this thread: the database may take its time."""
        from sqlalchemy.exc import SQLAlchemyError

        from training.jobs.engine import PATIENCE

        PATIENCE.until = until
        client = None
        try:
            with _held(self._opening, until):
                self._client = client = self._client or _connect(self._settings)
            return question(client)
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            if client and client is self._client and not _is_locked(cause):
                self._client = None  # the next question connects, and makes the tables where there are none
                client.destroy()
            raise JobsUnavailable(f"the jobs' database does not answer: {str(cause).splitlines()[0]}") from error

    async def close(self) -> None:
        """Disconnects."""
        if self._client is not None:
            await asyncio.to_thread(self._client.destroy)
            self._client = None


@contextlib.contextmanager
def _held(lock: threading.Semaphore, until: float) -> Iterator[None]:
    """Holds the lock. Raises JobsUnavailable when the questions ahead take too long."""
    if not lock.acquire(timeout=max(0.0, until - time.monotonic())):
        raise JobsUnavailable("the jobs' database does not answer: earlier questions still wait for it")
    try:
        yield
    finally:
        lock.release()


def _is_locked(error: BaseException) -> bool:
    """Whether another process holds SQLite's lock: the connection is as good as before."""
    from training.jobs.engine import sqlite_code

    return sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def sqlite_fault(python: tuple[int, int], sqlite: tuple[int, int, int]) -> str | None:
    """Returns why the engine cannot keep jobs in this SQLite, or None.

    From Python 3.12 on the engine needs an SQLite that knows milliseconds. Debian 12's is older.
    """
    if python < (3, 12) or sqlite >= (3, 42):
        return None
    has = ".".join(map(str, sqlite))
    return f"from Python 3.12 on the jobs need SQLite 3.42 or newer, this one is {has}: use Python 3.11, or PostgreSQL"


def _connect(settings: SharedSettings) -> "DBOSClient":
    from training.jobs.engine import DBOS, DBOSClient, DBOSPortableJSONSerializer

    logging.getLogger("dbos").setLevel(logging.WARNING)  # else it advertises its makers' service
    if not settings.database:
        if fault := sqlite_fault(sys.version_info[:2], sqlite3.sqlite_version_info):
            raise JobsUnavailable(fault)
        try:
            settings.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobsUnavailable(f"the folder of the jobs' database cannot be made: {error}") from error
    DBOS.migrate(settings.database_url)
    return DBOSClient(
        system_database_url=settings.database_url,
        application_name=APPLICATION,
        system_database_pool_size=ASKING,  # else questions wait for a connection, with a patience of its own
        serializer=DBOSPortableJSONSerializer(),
        retry_connection_errors=False,  # else a request would wait for ever
    )
