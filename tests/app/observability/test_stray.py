"""What others print while the log is JSON: real pipes, real processes, output in C."""

import ctypes
import json
import os
import subprocess
import sys
import threading
from typing import Any

from app.observability.stray import BURST, LONGEST, RATE, Allowance, StrayOutput
from tests.process import ROOT, environment

Line = dict[str, Any]  # Any: JSON

PROGRAM = """
import ctypes, os, subprocess, sys, threading, warnings
from app.observability.logs import configure
from app.observability.stray import INSTALLATION
from app.settings import Settings
import logging

configure(Settings(log="json"))
libc = ctypes.CDLL(None)
libc.dprintf(2, b"TIFFFetchNormalTag: Warning, \\\\r IO error\\n{\\"time\\": 1}\\n")
libc.puts(b"a line on stdout")
libc.fflush(None)
print("printed"); print("to stderr", file=sys.stderr)
warnings.warn("Truncated File Read")
print(f'File "{INSTALLATION[0]}/PIL/TiffImagePlugin.py"', file=sys.stderr)
logging.getLogger("app").warning("a message")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
child = subprocess.Popen(["sh", "-c", "echo of a child; printf 'half a li'; kill -9 $$"])
child.wait()
sys.exit("and the end")
"""


def lines_of(output: bytes) -> list[Line]:
    return [json.loads(line) for line in output.splitlines()]


def test_every_line_of_a_process_is_json() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, timeout=60)
    assert done.stdout == b""
    lines = lines_of(done.stderr)
    said = [line["message"] for line in lines if line["logger"] == "stderr"]
    for expected in (
        *("TIFFFetchNormalTag: Warning, \\r IO error", '{"time": 1}', "a line on stdout", "printed", "to stderr"),
        *("UserWarning: Truncated File Read", "ZeroDivisionError: division by zero", "of a child", "and the end"),
        'File "PIL/TiffImagePlugin.py"',
    ):
        assert any(expected in message for message in said), (expected, said)
    assert [line["level"] for line in lines if line["logger"] == "app"] == ["warning"]
    assert sys.prefix.encode() not in done.stderr
    assert done.returncode == 1


def collected(write: bytes, pieces: int = 1) -> list[Line]:
    """Returns the lines that come of what is written, in so many pieces, through a file of the log."""
    reading, log = os.pipe()
    stray = StrayOutput(log)
    stray.start()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reading, 65536), b"")))
    reader.start()
    os.set_blocking(stray.into, True)  # the test waits, so that all of it comes
    for start in range(0, len(write), max(1, len(write) // pieces)):
        os.write(stray.into, write[start : start + max(1, len(write) // pieces)])
    stray.end()
    os.close(log)
    reader.join()
    os.close(reading)
    return lines_of(b"".join(found))


def test_a_flood_is_bounded_and_counted() -> None:
    lines = collected(b"".join(b"LZWDecode: not enough data %d\n" % i for i in range(20_000)), 100)
    written = [line for line in lines if line["message"] != "more lines were printed"]
    assert BURST <= len(written) < BURST + 60 * RATE
    assert len(written) + sum(line.get("dropped", 0) for line in lines) == 20_000


def test_a_line_is_bounded_and_may_come_in_pieces_or_without_an_end() -> None:
    lines = collected(b"one\n\n \ntwo " + b"x" * 100_000 + b"\n\xff\xfe three", 7)
    assert [len(line["message"]) for line in lines] == [3, LONGEST, 8]
    assert lines[2]["message"] == "\ufffd\ufffd three"


def test_lines_come_back_with_the_time() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)
    assert [allowance.take() for _ in range(BURST + 2)] == [True] * BURST + [False] * 2
    now = 2 / RATE
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now = 1e6
    assert sum(allowance.take() for _ in range(2 * BURST)) == BURST


def test_who_prints_never_waits_for_a_log_that_nobody_reads() -> None:
    reading, log = os.pipe()
    os.set_blocking(log, False)
    while True:
        try:
            os.write(log, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(log, True)
    stray = StrayOutput(log, Allowance(lambda: 0.0))
    stray.start()
    for _ in range(200):  # 200 kB, where the pipe holds 64
        ctypes.CDLL(None).dprintf(stray.into, b"x" * 1023 + b"\n")
    stray.end()
    os.close(reading)
