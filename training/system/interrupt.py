"""Ctrl-C: one line and a prompt end, even while TensorFlow computes.

Python handles a signal in the main thread, between two of its own instructions: a step of TensorFlow on large images
delays it for seconds. Here the signal wakes a thread as well. The main thread gets a moment to unwind, which removes
half-written files; then the process ends where it stands. A run loses nothing: all its files are written by renames.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

STATUS = 128 + signal.SIGINT  # the status that a shell gives
UNWIND_S = 0.7


class Interrupt:
    """The effect of Ctrl-C on this process."""

    def __init__(self) -> None:
        self.came = False
        self._running = False
        self._words: Callable[[], str] = lambda: "stopped"
        self._stderr = 2
        self._ending = threading.Lock()

    def watch(self) -> None:
        """Takes Ctrl-C over from Python. A process that was started to ignore it goes on ignoring it."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        self._stderr = os.dup(2)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.signal(signal.SIGINT, self._interrupted)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reading,), name="interrupt", daemon=True).start()

    def run(self, command: Callable[[list[str]], int]) -> NoReturn:
        """Runs the command with the typed arguments, and ends the process with its status."""
        self._running = True
        try:
            status = command(sys.argv[1:])
        finally:
            if self.came:  # whatever happened to the exception on its way up
                self.end()
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process is ending: nothing is left to say
        sys.exit(status)

    def says(self, words: Callable[[], str]) -> None:
        """Sets the line to print. `words` is called as the process ends, in any thread."""
        self._words = words

    def leave(self) -> None:
        """Gives Ctrl-C back to Python, for code that handles it."""
        if self._watched():
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(self) -> NoReturn:
        """Prints the line and ends the process."""
        with self._ending:  # never released: a second thread waits here for the end of the process
            try:
                words = self._words()
            except BaseException as error:  # the process ends in any case, and says at least this
                words = f"stopped; how to go on is not known: {error!r}"
            try:
                start = "\r" if os.isatty(self._stderr) else ""  # a terminal has written ^C
                os.write(self._stderr, f"{start}{words}\n".encode(errors="surrogateescape"))
            finally:
                os._exit(STATUS)  # not sys.exit: TensorFlow's own end takes seconds

    def _watched(self) -> bool:
        return signal.getsignal(signal.SIGINT) == self._interrupted

    def _interrupted(self, *_: object) -> None:
        if not self.came:  # a second Ctrl-C has nothing to add
            self._come()
            if not self._running:  # the program is still being imported: there is nothing to unwind
                self.end()
            raise KeyboardInterrupt

    def _come(self) -> None:
        self.came = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # hides what the libraries print as they are torn down

    def _wait(self, pipe: int) -> None:
        while signal.SIGINT not in os.read(pipe, 64) or not self._watched():
            pass
        time.sleep(UNWIND_S)
        self._come()
        self.end()


INTERRUPT = Interrupt()
