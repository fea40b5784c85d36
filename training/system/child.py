"""A process that runs one phase. It ends when it is asked to, or when the process that started it is gone."""

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
    """A process that ended with an error. The message is its own last words."""


class ChildKilled(TrainingError):
    """A process that a signal ended. The message is the signal's name."""


async def run_child(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command to its end and appends what it prints to `log`. When cancelled, ends the process first.

    `environment` is this process' own by default. The command's stdin is a pipe that nothing is written to: it closes
    when this process is gone (`training.system.lifeline`). Raises ChildFailed, ChildKilled, OSError.
    """
    process = _start(command, log, environment)
    try:
        status, tail = await asyncio.to_thread(_follow, process, log)
    except asyncio.CancelledError:
        await asyncio.to_thread(_end, process)  # in a thread, which goes on even if this is cancelled again
        raise
    if status < 0:
        raise ChildKilled(signal.Signals(-status).name)
    if status > 0:
        raise ChildFailed(_last_words(tail) or f"it ended with status {status} and said nothing")


def _start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Starts the process, in milliseconds.

    asyncio's own will not do: cancelled with all other tasks, when the engine stops, it waits for ever.
    """
    with FileIO(log, "a") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.PIPE,
            env=environment,
            # a group of its own: Ctrl-C in the worker's terminal is for the worker alone. No session of its own: Linux
            # shares processors between sessions first, and niceness counts only within a session
            process_group=0,
        )
    _running.add(process)
    return process


def _follow(process: subprocess.Popen[bytes], log: Path) -> tuple[int, bytes]:
    """Copies stderr to the log until the process ends. Returns its status and the end of its stderr."""
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
    """Ends the processes that still run: an event loop that stops may never cancel `run_child`."""
    for process in list(_running):
        _end(process)


def _last_words(tail: bytes) -> str:
    """Returns the last line that begins with `error: `, or else the last line with words, as in a traceback."""
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
    """Sends a signal to the child's whole group, which it leads."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, number)
