import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.processes.keeper import Keeper
from tests.process import environment, service, until
from tests.training.engine import gone

pytestmark = pytest.mark.anyio


def keeper_of(
    tmp_path: Path,
    code: str,
    ending: Callable[[], bool] = lambda: False,
    delay: float = 0.01,
    steady: float = 60,
) -> Keeper:
    """Keeps a program whose each start leaves its process id as a line of `starts`."""
    note = f"import os, sys, time; open({str(tmp_path / 'starts')!r}, 'a').write(str(os.getpid()) + '\\n'); "
    command = [sys.executable, "-c", note + code]
    return Keeper("pet", command, environment(), ending, {2: "it has no food"}, first_delay_s=delay, steady_s=steady)


def starts(tmp_path: Path) -> list[int]:
    path = tmp_path / "starts"
    return [int(pid) for pid in path.read_text().splitlines()] if path.exists() else []


async def becomes(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition)


def pauses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage().rsplit(" in ", 1)[1] for r in caplog.records if r.name == "app.processes.keeper"]


async def test_what_dies_is_started_again(tmp_path: Path) -> None:
    async with keeper_of(tmp_path, "sys.stdin.read()") as keeper:
        await becomes(lambda: len(starts(tmp_path)) == 1)
        os.kill(starts(tmp_path)[0], signal.SIGKILL)
        await becomes(lambda: len(starts(tmp_path)) == 2)
        assert keeper.error == "the pet ended with SIGKILL; the service's log has its output"
        await becomes(lambda: keeper.pid == starts(tmp_path)[1])  # it may write before it is known here
    assert all(gone(pid) for pid in starts(tmp_path))


async def test_pauses_double_and_begin_anew_after_a_steady_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with keeper_of(tmp_path, "sys.exit(1)", delay=0.02):
        await becomes(lambda: len(starts(tmp_path)) == 4)
    assert pauses(caplog)[:3] == ["0.02 s", "0.04 s", "0.08 s"]
    caplog.clear()
    async with keeper_of(tmp_path, "sys.exit(1)", delay=0.02, steady=0):
        await becomes(lambda: len(starts(tmp_path)) == 7)
    assert set(pauses(caplog)) == {"0.02 s"}


async def test_after_a_fatal_status_it_is_not_started_again(tmp_path: Path) -> None:
    async with keeper_of(tmp_path, "sys.exit(2)") as keeper:
        await keeper.gave_up()
        assert keeper.error == "the pet cannot run: it has no food"
    assert len(starts(tmp_path)) == 1


async def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with Keeper("pet", [str(tmp_path / "missing")], environment(), lambda: False, {}) as keeper:
        await becomes(lambda: keeper.error is not None)
        assert "No such file" in str(keeper.error)


async def test_draining_ends_it_and_starts_none(tmp_path: Path) -> None:
    drain = tmp_path / "drain"
    async with keeper_of(tmp_path, "sys.stdin.read()", drain.exists) as keeper:
        await becomes(lambda: len(starts(tmp_path)) == 1)
        drain.touch()
        await becomes(lambda: gone(starts(tmp_path)[0]))
        await keeper.gave_up()
    assert len(starts(tmp_path)) == 1


async def test_leaving_waits_for_one_that_is_ending(tmp_path: Path) -> None:
    drain, told, go = tmp_path / "drain", tmp_path / "told", tmp_path / "go"
    slow = f"""
import pathlib, signal
def end(*_):
    pathlib.Path({str(told)!r}).touch()
    while not pathlib.Path({str(go)!r}).exists():
        pass
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
signal.pause()
"""
    async with keeper_of(tmp_path, slow, drain.exists) as keeper:
        await becomes((tmp_path / "ready").exists)
        drain.touch()
        await becomes(told.exists)
        leaving = asyncio.create_task(keeper.__aexit__())
        await asyncio.sleep(0)
        go.touch()
        await leaving
        assert gone(starts(tmp_path)[0])


async def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    async with keeper_of(tmp_path, "sys.stdin.read()"):
        await becomes(lambda: len(starts(tmp_path)) == 1)
        (pid,) = starts(tmp_path)
        assert (os.getpgid(pid), os.getsid(pid)) == (pid, os.getsid(0))


async def test_without_a_command_there_is_nothing(tmp_path: Path) -> None:
    async with Keeper("pet", None, environment(), lambda: False, {}) as keeper:
        assert (keeper.pid, keeper.error) == (None, None)
    assert not starts(tmp_path)


def worker_pid(client: httpx.Client) -> int:
    """Returns the process id of the real worker, or 0 while there is none."""
    workers = client.get("/health").json()["trainer"]["workers"]
    return next((worker["pid"] for worker in workers if worker["alive"]), 0)


@contextmanager
def working(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, int]]:
    """Yields the service's process, a client of it, and the process id of its worker."""
    with (
        service(tmp_path, worker="true") as (process, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        until(lambda: worker_pid(client) != 0)
        yield process, client, worker_pid(client)


def test_the_service_keeps_a_real_worker_and_takes_it_along(tmp_path: Path) -> None:
    with working(tmp_path) as (process, client, first):
        os.kill(first, signal.SIGKILL)
        until(lambda: worker_pid(client) not in (0, first))
        second = worker_pid(client)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert gone(second)


def test_the_worker_ends_with_a_service_that_is_killed(tmp_path: Path) -> None:
    with working(tmp_path) as (process, _, worker):
        process.kill()
        until(lambda: gone(worker))
