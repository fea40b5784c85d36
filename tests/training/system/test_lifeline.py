"""A process that ends with the one that started it."""

import os
import subprocess
import sys

from tests.process import ROOT
from training.system.lifeline import ORPHANED

CODE = (
    "import sys, time; from training.system import lifeline; lifeline.follow(); print('up', flush=True); time.sleep(60)"
)


def test_it_ends_once_nobody_holds_the_other_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "up\n"
    assert process.poll() is None
    # a group of its own, which Ctrl-C does not reach, in the same session
    assert (os.getpgid(process.pid), os.getsid(process.pid)) == (process.pid, os.getsid(0))
    process.stdin.close()
    assert process.wait(5) == ORPHANED
    process.stdout.close()
