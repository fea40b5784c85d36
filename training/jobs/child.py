"""A process that does one phase, and ends when it is told to, or when the one that started it is gone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from training.errors import TrainingError

GRACE_S = 2.0  # between SIGTERM and SIGKILL
TAIL_BYTES = 16_384
REASON_CHARACTERS = 2_000


class ChildFailed(TrainingError):
    """It ended by itself, and not well; the message is its own last words."""


class ChildKilled(TrainingError):
    """A signal ended it; the message is the signal's name."""


async def run_child(command: Sequence[str], log: Path) -> None:
    """Runs it to its end; what it prints goes to the end of `log`. Cancelled, it ends the process first.

    Its stdin is a pipe that nothing is written to: it closes when this process is gone (`training.lifeline`).
    Raises ChildFailed, ChildKilled, OSError.
    """
    with FileIO(log, "a") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the worker's terminal is the worker's matter
        )
        try:
            assert process.stderr
            tail = await _copy(process.stderr, file)
            status = await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)
    if status < 0:
        raise ChildKilled(signal.Signals(-status).name)
    if status > 0:
        raise ChildFailed(_last_words(tail) or f"it ended with status {status} and said nothing")


async def _copy(stream: asyncio.StreamReader, file: FileIO) -> bytes:
    """To its end; returns the last of it."""
    tail = b""
    while chunk := await stream.read(65_536):
        file.write(chunk)
        tail = (tail + chunk)[-TAIL_BYTES:]
    return tail


def _last_words(tail: bytes) -> str:
    """The last line that says `error: `; else, as of a traceback, the last one that says anything."""
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:REASON_CHARACTERS]


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the whole group: the child leads one of its own."""
    with contextlib.suppress(ProcessLookupError):  # it ended in this moment
        os.killpg(process.pid, number)
