"""A process that does one phase, and ends when it is told to, or when the one that started it is gone."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from io import BufferedReader, FileIO
from pathlib import Path

from training.errors import TrainingError

GRACE_S = 2.0  # between SIGTERM and SIGKILL
TAIL_BYTES = 16_384
REASON_CHARACTERS = 2_000

_running: set[subprocess.Popen[bytes]] = set()


class ChildFailed(TrainingError):
    """It ended by itself, and not well; the message is its own last words."""


class ChildKilled(TrainingError):
    """A signal ended it; the message is the signal's name."""


async def run_child(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs it to its end; what it prints goes to the end of `log`. Cancelled, it ends the process first.

    `environment` is by default this process' own.

    Its stdin is a pipe that nothing is written to: it closes when this process is gone (`training.system.lifeline`).
    Raises ChildFailed, ChildKilled, OSError.
    """
    process = _start(command, log, environment)
    try:
        status, tail = await asyncio.to_thread(_follow, process, log)
    except asyncio.CancelledError:
        await asyncio.to_thread(_end, process)  # its thread goes on should this be cancelled once more
        raise
    if status < 0:
        raise ChildKilled(signal.Signals(-status).name)
    if status > 0:
        raise ChildFailed(_last_words(tail) or f"it ended with status {status} and said nothing")


def _start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Takes milliseconds. Not asyncio's: cancelled with all other tasks, as the engine stops, that waits for ever."""
    with FileIO(log, "a") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.PIPE,
            env=environment,
            # Ctrl-C in the worker's terminal is the worker's matter. No session of its own: Linux shares processors out
            # by session first, and niceness counts within one alone
            process_group=0,
        )
    _running.add(process)
    return process


def _follow(process: subprocess.Popen[bytes], log: Path) -> tuple[int, bytes]:
    """To its end; returns its status and the last that it wrote to stderr, all of which goes to the log."""
    tail = b""
    try:
        with process, FileIO(log, "a") as file:
            assert isinstance(process.stderr, BufferedReader)
            while chunk := process.stderr.read1():
                file.write(chunk)
                tail = (tail + chunk)[-TAIL_BYTES:]
            return process.wait(), tail
    finally:
        _running.discard(process)


def end_children() -> None:
    """Ends what still runs. An event loop that stops may not come to tell `run_child` that it is cancelled."""
    for process in list(_running):
        _end(process)


def _last_words(tail: bytes) -> str:
    """The last line that says `error: `; else, as of a traceback, the last one that says anything."""
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:REASON_CHARACTERS]


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole group: the child leads one of its own."""
    with contextlib.suppress(ProcessLookupError):  # it ended in this moment
        os.killpg(process.pid, number)
