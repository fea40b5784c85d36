"""The end of a process with its parent, even when the parent was killed.

The parent holds the write end of a pipe that is this process' stdin. When the parent is gone, the system closes the
pipe. Linux' PR_SET_PDEATHSIG would follow the thread that forked, not the process.
"""

import os
import sys
import threading
from collections.abc import Callable

ORPHANED = 70  # exit status, EX_SOFTWARE of sysexits; nobody is left to read it


def follow(end: Callable[[], None] = lambda: os._exit(ORPHANED)) -> None:
    """Calls `end` in a thread once stdin ends. From now on Ctrl-C in the terminal reaches the parent alone."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # no buffered reader: its lock would be held at exit
            pass
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
