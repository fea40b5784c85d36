"""The engine of the jobs (DBOS), which here reads JSON and nothing else, and drops connections that are of no use.

A row of its database names the format that it is in, and the engine believes it; one of its formats is pickle, which
runs what it holds. Whoever may write a row, a trainer in another container for one, could run code in the service. So
the engine's one way to a pickle is closed as this module is imported, and all that use the engine import it from here.
It takes more than a second to import.

SQLite opens a file that it may not write as one to read, and a connection stays like that; it also goes on with a file
that was deleted or replaced. The engine keeps its connections, so here they are looked at.
"""

import logging
import os
import sqlite3
import threading
import time
import types
from typing import NoReturn

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, _sys_db, error
from dbos._serialization import DefaultSerializer
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

__all__ = ["DBOS", "DBOSClient", "DBOSConfig", "DBOSPortableJSONSerializer", "error"]

MOST_COMPLAINTS = 100
BUSY_S = 30.0  # how long a worker's statement waits for a lock before the engine repeats it
STALE = {  # SQLite's errors after which a new connection may do better
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM),
}
PASSING = {  # errors that pass when there is room, or when others are done
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
}
LONGEST_PAUSE_S = 5.0  # between two tries of a worker
READ_ONLY_STATE = "25006"  # PostgreSQL's: the server became a standby, and its successor has the same address


def _refuse(*_: object) -> NoReturn:
    raise TypeError("it is in the format pickle, which is never read; it should be portable_json")


DefaultSerializer.deserialize = _refuse  # type: ignore[assignment, method-assign]  # the engine has no setting for it


class _Patience(threading.local):
    """The end of a question's patience, by the monotonic clock, in the thread that asks it; None for a worker's own."""

    until: float | None = None


PATIENCE = _Patience()


def _retry(error: Exception) -> bool:
    """Whether the engine should repeat what failed on SQLite: a worker waits, a question has an end."""
    stopped = _stop is not None and _stop.is_set()
    return PATIENCE.until is None and not stopped and sqlite_code(getattr(error, "orig", None)) in PASSING


# the engine has no setting for it, and waits for a lock without end: what was refused would be carried out long after
_sys_db.retriable_sqlite_exception = _retry  # type: ignore[assignment, attr-defined]  # it is imported there
_stop: threading.Event | None = None


_lost_connection = _sys_db.retriable_postgres_exception  # type: ignore[attr-defined]  # so is this


def _retry_on_postgres(error: Exception) -> bool:
    """Whether PostgreSQL may take the same again later: a lost connection, a full disk, and here a standby, too.

    The engine gives a question the error all the same.
    """
    return _lost_connection(error) or getattr(getattr(error, "orig", None), "sqlstate", None) == READ_ONLY_STATE


_sys_db.retriable_postgres_exception = _retry_on_postgres  # type: ignore[assignment, attr-defined]


def wait_for_database(stop: threading.Event) -> None:
    """Lets the engine wait until SQLite can be written, for as long as `stop` is not set: for a process that works.

    The engine's own pauses grow to more than a minute, in which nothing could end it.
    """
    global _stop
    _stop = stop
    pause = {"sleep": lambda seconds: stop.wait(min(seconds, LONGEST_PAUSE_S))}
    _sys_db.time = types.SimpleNamespace(**(vars(time) | pause))  # type: ignore[assignment, attr-defined]  # so is this


def sqlite_code(error: BaseException | None) -> int:
    """Returns the kind of one of SQLite's errors, 0 for another error."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


@event.listens_for(Engine, "handle_error")
def _mark_stale(context: ExceptionContext) -> None:
    cause = context.original_exception
    if context.connection and (sqlite_code(cause) in STALE or getattr(cause, "sqlstate", None) == READ_ONLY_STATE):
        context.connection.info["stale"] = True


@event.listens_for(Pool, "connect")
def _remember_file(connection: object, record: ConnectionPoolEntry) -> None:
    if isinstance(connection, sqlite3.Connection):
        record.info["path"] = path = connection.execute("PRAGMA database_list").fetchone()[2]
        record.info["file"] = _identity(path)


@event.listens_for(Pool, "checkout")
def _require_fresh(connection: object, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
    """Has the pool connect anew where a connection is of no use, and drop all that are as old."""
    if record.info.get("stale"):
        raise InvalidatePoolError("the connection was of no use to its last owner")
    if isinstance(connection, sqlite3.Connection):
        if _identity(record.info["path"]) != record.info["file"]:
            raise InvalidatePoolError("the database's file was replaced")
        left = BUSY_S if PATIENCE.until is None else max(0.0, PATIENCE.until - time.monotonic())
        connection.execute(f"PRAGMA busy_timeout={int(1000 * left)}")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _OnceEach(logging.Filter):
    """Lets a complaint about an unreadable row through once: clients and metrics ask for all rows every second."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "could not be deserialized" not in message:
            return True
        new = message not in self._seen and len(self._seen) < MOST_COMPLAINTS
        if new:
            self._seen.add(message)
        return new


logging.getLogger("dbos").addFilter(_OnceEach())
