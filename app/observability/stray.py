"""Makes JSON lines of what decoders in C, Python's warnings and child processes print.

libtiff and its like write to descriptor 2 what they think of an upload. With RESNEXT_LOG=json the descriptors 1 and 2
are the end of a pipe. A thread makes each line JSON, a bounded number of them a second, and writes it to the real
stderr. The log's own handlers write there directly. Nobody waits for that thread: where the pipe is full, what is
printed is lost. A crash may take the last lines with it.
"""

import atexit
import contextlib
import io
import json
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

BURST = 50  # lines at once
RATE = 5.0  # lines a second after that
LONGEST = 500  # characters of a line
PAUSE_S = 1.0  # after which lines that were dropped are told of, though none follows
END_S = 1.0
CHUNK_BYTES = 65536

INSTALLATION = sorted({sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])}, key=len, reverse=True)


class Allowance:
    """A number of lines that grows by RATE a second, up to BURST."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock()

    def take(self) -> bool:
        """Whether one more line may be written."""
        now = self._clock()
        self._left = min(BURST, self._left + RATE * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class StrayOutput:
    """The lines that come through a pipe, as JSON, from `start` to `end`. `log` is the descriptor to write them to."""

    def __init__(self, log: int, allowance: Allowance | None = None) -> None:
        self.log = log
        self._reading, self.into = os.pipe()
        os.set_blocking(self.into, False)  # also for children: it belongs to the pipe, not to the process
        self._allowance = allowance or Allowance()
        self._part = b""
        self._dropped = 0
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="stray output", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Writes what has come so far, and ends the thread."""
        self._ending = True
        with contextlib.suppress(OSError):  # a full pipe wakes it, too
            os.write(self.into, b"\n")
        self._thread.join(END_S)  # no longer: perhaps nobody reads the log

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads the log any more
            coming = select.poll()
            coming.register(self._reading, select.POLLIN)
            while not self._ending:
                if coming.poll(1000 * PAUSE_S if self._dropped else None):
                    self._take(os.read(self._reading, CHUNK_BYTES))
                elif self._dropped:
                    self._write("more lines were printed")
            while coming.poll(0):
                self._take(os.read(self._reading, CHUNK_BYTES))
            self._take(b"\n")
            if self._dropped:
                self._write("more lines were printed")

    def _take(self, chunk: bytes) -> None:
        *lines, part = (self._part + chunk).split(b"\n")
        self._part = part[: 4 * LONGEST]  # the end of a line that is longer is lost
        for line in lines:
            if not line.strip():
                continue
            if self._allowance.take():
                self._write(line.decode(errors="replace").strip())
            else:
                self._dropped += 1

    def _write(self, text: str) -> None:
        for place in INSTALLATION:
            text = text.replace(f"{place}/", "")
        line = {"time": round(time.time(), 3), "level": "warning", "logger": "stderr", "message": text[:LONGEST]}
        if self._dropped:
            line["dropped"], self._dropped = self._dropped, 0
        os.write(self.log, json.dumps(line).encode() + b"\n")


class _Printed(io.TextIOBase):
    """Python's own stdout and stderr, which never wait and never fail."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)


_log = 2


def log_descriptor() -> int:
    """Returns the descriptor that the log of this process goes to."""
    return _log


def take_output() -> int:
    """Takes over what this process and its children print, until the process ends. Returns `log_descriptor()`."""
    global _log
    _log = os.dup(2)
    stray = StrayOutput(_log)
    for descriptor in (1, 2):
        os.dup2(stray.into, descriptor)
    sys.stdout, sys.stderr = _Printed(1), _Printed(2)
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    stray.start()
    atexit.register(stray.end)
    return _log
