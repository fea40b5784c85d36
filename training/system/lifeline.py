"""A process that ends with the one that started it, also when that one was killed.

The starter holds the write end of a pipe that is this process' stdin; when the starter is gone, the system closes it.
Linux' PR_SET_PDEATHSIG would follow the thread that forked, not the process.
"""

import os
import sys
import threading
from collections.abc import Callable

ORPHANED = 70  # exit status, sysexits' EX_SOFTWARE: nobody is left to read it


def follow(end: Callable[[], None] = lambda: os._exit(ORPHANED)) -> None:
    """Calls `end` in a thread once stdin ends. Ctrl-C in the terminal is from now on for the starter alone."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # no buffered reader: its lock would be held at exit
            pass
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
