"""Runs a command in a terminal and reads the screen as a person sees it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

from tests.process import ROOT

ROWS = 50
HISTORY = 10_000  # lines that have scrolled off the screen
END_OF_TEXT = b"\x03"  # Ctrl-C


class Terminal:
    """A command on a pseudo-terminal of its own. Leaving the block kills it."""

    def __init__(
        self,
        *command: object,
        environment: Mapping[str, str],
        columns: int = 80,
        cwd: Path = ROOT,
        seconds: float = 300,
    ) -> None:
        """Starts the command, which may take `seconds` in all."""
        self.transcript = b""
        self.frames: list[str] = []  # the screen after each piece of output
        self.ends = time.monotonic() + seconds
        self._screen = pyte.HistoryScreen(columns, ROWS, history=HISTORY)
        self._stream = pyte.ByteStream(self._screen)
        self._keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        variables = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            # Ctrl-C reaches only a process that the terminal controls; and a shell's `&` makes the process ignore it
            ["env", "--default-signal=INT", "setsid", "--ctty", *map(str, command)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=cwd,
            env={"TERM": "xterm-256color", **variables},
        )
        os.close(terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keyboard)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen and those that scrolled off it, without trailing blanks."""
        history = ["".join(row[i].data for i in range(self._screen.columns)) for row in self._screen.history.top]
        return "\n".join(line.rstrip() for line in (*history, *self._screen.display)).rstrip("\n").split("\n")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, condition: Callable[[Self], bool]) -> None:
        """Reads until the condition holds."""
        while not condition(self):
            assert self._read(), f"the command ended first:\n{self.text}"

    def to_end(self) -> int:
        """Reads to the end of the command, and returns its exit status."""
        while self._read():
            pass
        return self.process.wait()

    def press(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def _read(self) -> bool:
        """Reads what the command has written; returns False at its end."""
        ready, _, _ = select.select([self._keyboard], [], [], max(0, self.ends - time.monotonic()))
        assert ready, f"the command should have ended by now:\n{self.text}"
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # EIO: the other end of a pseudo-terminal is closed
            return False
        self.transcript += data
        self._stream.feed(data)
        self.frames.append("\n".join(self._screen.display))
        return bool(data)
