"""A database that was read-only, replaced or locked for a while: it is used again when it can be."""

import asyncio
import contextlib
import ctypes
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from tests.training.engine import Engine, ask
from training.jobs.database import ASKING, JobsDatabase
from training.jobs.job import JobsUnavailable
from training.jobs.jobs import Jobs

NOBODY = 65534


@pytest.fixture
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:  # not in pytest's folder, which only this user may enter
        Path(folder).chmod(0o755)
        engine = Engine(Path(folder))
        yield engine
        engine.close()


@contextlib.contextmanager
def only_reading(folder: Path) -> Iterator[None]:
    """Takes the right to write from this thread and those that it starts; root would not miss it."""
    paths = [folder, *folder.glob("jobs.sqlite*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    set_user = ctypes.CDLL(None).setfsuid  # of files, for one thread
    set_user(user or NOBODY)
    try:
        yield
    finally:
        set_user(user)
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_database_that_was_read_only_is_written_again(engine: Engine) -> None:
    engine.submit()
    ask(engine.jobs.close())  # its connections may write: as after a start on a disk that is mounted to be read
    with only_reading(engine.shared.state):
        for _ in range(2):
            with pytest.raises(JobsUnavailable, match="readonly database"):
                engine.submit()
    engine.submit()
    assert ask(engine.jobs.list()).total == 2


def test_the_engine_itself_drops_a_connection_that_may_only_read(engine: Engine) -> None:
    """A worker keeps its connections for weeks."""
    engine.submit()
    ask(engine.jobs.close())
    write = sqlalchemy.text("UPDATE workflow_status SET priority = 7")
    database = sqlalchemy.create_engine(engine.shared.database_url)
    with only_reading(engine.shared.state), pytest.raises(OperationalError, match="readonly"), database.begin() as kept:
        kept.execute(write)
    with database.begin() as connection:
        assert connection.execute(write).rowcount == 1
    database.dispose()


def test_a_database_that_was_replaced_or_removed_is_another_one(engine: Engine) -> None:
    engine.submit()
    for file in engine.shared.state.glob("jobs.sqlite*"):
        file.unlink()
    with pytest.raises(JobsUnavailable, match="no such table"):
        ask(engine.jobs.list())
    assert ask(engine.jobs.list()).total == 0
    engine.submit()
    assert ask(engine.jobs.list()).total == 1


def test_a_file_that_is_no_database_is_used_once_it_is_gone(engine: Engine) -> None:
    engine.submit()
    file = engine.shared.state / "jobs.sqlite"
    other = file.with_name("other")
    other.write_bytes(os.urandom(8192))
    other.rename(file)
    for _ in range(2):
        with pytest.raises(JobsUnavailable, match=r"not a database|malformed|I/O"):
            ask(engine.jobs.list())
    for path in engine.shared.state.glob("jobs.sqlite*"):
        path.unlink()
    with contextlib.suppress(JobsUnavailable):
        ask(engine.jobs.list())
    assert ask(engine.jobs.list()).total == 0


def test_what_was_refused_while_the_database_was_locked_is_not_queued(engine: Engine) -> None:
    first = engine.submit()
    engine.jobs = Jobs(engine.shared, patience_s=0.5)
    ask(engine.jobs.open())

    async def refused(submit: int) -> None:
        limit = 30 if submit % 2 else 0.1  # some are given up, as after the service's limit, some wait for their error
        with pytest.raises((JobsUnavailable, TimeoutError)):
            await asyncio.wait_for(engine.jobs.submit(first.config, first.dataset), limit)

    async def all_at_once() -> None:
        await asyncio.gather(*map(refused, range(24)))

    other = sqlite3.connect(engine.shared.state / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ask(all_at_once())
    assert ask(engine.jobs.list()).total == 1  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    engine.submit()
    assert ask(engine.jobs.list()).total == 2


def test_a_question_that_was_taken_back_before_its_turn_is_not_asked(engine: Engine) -> None:
    database = JobsDatabase(engine.shared)
    asked: list[object] = []
    all_at_it, gate = threading.Barrier(ASKING + 1), threading.Event()

    def holds(_: object) -> None:
        all_at_it.wait(30)
        gate.wait(30)

    async def ask_all() -> None:
        holding = [asyncio.create_task(database.ask(holds)) for _ in range(ASKING)]
        await asyncio.to_thread(all_at_it.wait, 30)
        late = asyncio.create_task(database.ask(asked.append))
        await asyncio.sleep(0)  # its thread is started
        late.cancel()
        await asyncio.wait([late])
        gate.set()
        await asyncio.gather(*holding)
        await database.close()

    ask(ask_all())
    for thread in threading.enumerate():
        if thread.name == "jobs":
            thread.join(30)
    assert asked == []
