"""The end of a process that does not end by itself."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from app.processes.drain import Drain
from app.watch import TICK_S, Watch
from training.system.threads import within

logger = logging.getLogger(__name__)

HUNG = 4  # exit status of a process that had to be ended hard, or that ended since something hung
AFTER_DRAIN_S = 3.0
LAST_CHANCE_S = 10.0  # between the word that something is stuck, in /health/live, and the end
SET_BACK_S = 15.0


class Ending:
    """A thread that ends the process, hard if need be: `seconds` after its drain began, or when it is stuck.

    A process that is stuck drains first, since its other threads may still answer; then there is nothing to wait for.
    `stuck` is called with the reason before that, and gets SET_BACK_S; `last_chance` is the seconds from that call to
    the drain.
    """

    def __init__(
        self,
        drain: Drain,
        watch: Watch,
        seconds: float,
        stuck: Callable[[str], None],
        last_chance: float = LAST_CHANCE_S,
    ) -> None:
        self.hung = False
        self._drain = drain
        self._watch = watch
        self._seconds = seconds
        self._stuck = stuck
        self._last_chance = last_chance

    def start(self) -> None:
        """Starts the thread, which lasts as long as the process."""
        threading.Thread(target=self._look_on, name="ending", daemon=True).start()

    def _look_on(self) -> None:
        since: float | None = None
        while not self._drain.begun:  # polled: a signal handler, which begins the drain, cannot set an Event safely
            time.sleep(TICK_S)
            stuck = self._watch.stuck()
            if stuck is None:
                since = None
            elif since is None:
                since = time.monotonic()
                logger.critical("only a restart helps: %s", stuck)
                self._set_back(str(stuck))
            elif time.monotonic() > since + self._last_chance:
                logger.critical("the process ends, so that it is started again: %s", stuck)
                self.hung = True
                os.kill(os.getpid(), signal.SIGTERM)
                break
        self._end_hard_after(self._seconds)

    def _set_back(self, reason: str) -> None:
        try:
            within(SET_BACK_S, lambda: self._stuck(reason))
        except Exception:  # the process ends all the same
            logger.exception("ACTIVE could not be set back")

    def _end_hard_after(self, seconds: float) -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + seconds and not (self._drain.answered and self._watch.stuck()):
            time.sleep(TICK_S)
        words = ", ".join(self._watch.under_way()) or "nothing that is watched"
        with contextlib.suppress(Exception):
            logger.critical(
                "the process has not ended in %.0f s and is ended, with status %d; under way: %s",
                time.monotonic() - begun,
                HUNG,
                words,
            )
        os._exit(HUNG)
