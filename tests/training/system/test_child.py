"""The end of a phase's process, and its last words."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.process import until
from tests.training.engine import gone
from training.system import child
from training.system.child import ChildFailed, ChildKilled, end_children, run_child


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_it_prints_goes_to_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    asyncio.run(run_child(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"), log))
    assert log.read_text() == "before\nout\nerr\n"


def test_it_leads_a_group_and_shares_the_session(tmp_path: Path) -> None:
    code = "import os; print(os.getpgid(0) == os.getpid(), os.getsid(0))"
    asyncio.run(run_child(python(code), tmp_path / "log.txt"))
    assert (tmp_path / "log.txt").read_text() == f"True {os.getsid(0)}\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.stderr.write('error: no images\\nnoise\\n'); sys.exit(1)", "no images"),
        ("print('x' * 200_000, file=__import__('sys').stderr); raise KeyError('photos')", "KeyError: 'photos'"),
        ("raise SystemExit(3)", "it ended with status 3 and said nothing"),
    ],
)
def test_its_last_words_are_the_reason(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(ChildFailed) as failed:
        asyncio.run(run_child(python(code), tmp_path / "log.txt"))
    assert str(failed.value) == reason


def test_a_signal_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChildKilled, match="SIGKILL"):
        asyncio.run(run_child(python("import os; os.kill(os.getpid(), 9)"), tmp_path / "log.txt"))


def test_cancelled_it_is_asked_to_end_and_then_killed(tmp_path: Path) -> None:
    ready, asked, lived = tmp_path / "ready", tmp_path / "asked", tmp_path / "lived"
    stubborn = (
        "import os, pathlib, signal, time\n"
        f"signal.signal(15, lambda *_: pathlib.Path({str(asked)!r}).touch())\n"
        f"pathlib.Path({str(ready)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
        f"pathlib.Path({str(lived)!r}).touch()\n"
    )

    async def cancel() -> None:
        task = asyncio.create_task(run_child(python(stubborn), tmp_path / "log.txt"))
        await asyncio.to_thread(until, lambda: ready.exists() and ready.read_text() != "")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert gone(int(ready.read_text()))
    assert asked.exists()
    assert not lived.exists()


@pytest.mark.parametrize("turns", range(8))
def test_cancelled_while_it_starts_with_all_else_it_ends(tmp_path: Path, turns: int) -> None:
    """When the engine stops, it cancels every task of its loop, once."""
    lived = tmp_path / "lived"
    code = f"import pathlib, time; time.sleep(30); pathlib.Path({str(lived)!r}).touch()"

    async def cancel() -> None:
        task = asyncio.create_task(run_child(python(code), tmp_path / "log.txt"))
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())  # it waits for the thread that follows the process
    assert not lived.exists()


def test_children_end_though_the_loop_that_waits_for_them_has_stopped(tmp_path: Path) -> None:
    """A worker that ends on a busy machine: `run_child` never learns that it is cancelled."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(run_child(["sleep", "60"], tmp_path / "log"))
    loop.run_until_complete(asyncio.sleep(0))  # it starts the process in its first step
    (process,) = child._running
    end_children()
    assert process.poll() == -signal.SIGTERM
    with pytest.raises(ChildKilled, match="SIGTERM"):
        loop.run_until_complete(task)
    assert not child._running
    loop.close()
