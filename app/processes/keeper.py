"""A process that is kept alive beside this one: the training worker, or one of several that serve."""

import asyncio
import logging
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from app.settings import Settings

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # a process that lived so long is started again as if it were the first time
GRACE_S = 10.0  # between SIGTERM and SIGKILL
POLL_S = 0.2
END_POLL_S = 0.02

NICENESS = 10  # of a training beside requests: a ninth of their share, all of it where there are none
TRAINING_WORKER = (sys.executable, "-m", "training", "worker", "--lifeline", "--nice", str(NICENESS))

log = logging.getLogger(__name__)


class Keeper:
    """Keeps `command` running from entering the context to leaving it, or until `ending` says so.

    Its stdin is a pipe that closes when this process is gone, however it went; what it prints joins the service's.
    `name` is what messages call it; `fatal` has the exit statuses after which another start would be of no use, and
    why; `on_end` is told the process id of each that has ended. Without a command there is nothing to keep.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str] | None,
        environment: Mapping[str, str],
        ending: Callable[[], bool],
        fatal: Mapping[int, str],
        *,
        on_end: Callable[[int], None] | None = None,
        grace_s: float = GRACE_S,
        first_delay_s: float = FIRST_DELAY_S,
        steady_s: float = STEADY_S,
    ) -> None:
        self.error: str | None = None
        self.pid: int | None = None
        self._name = name
        self._command = command
        self._environment = environment
        self._asked_to_end = ending
        self._fatal = fatal
        self._on_end = on_end
        self._grace_s = grace_s
        self._left = False
        self._first_delay_s = first_delay_s
        self._steady_s = steady_s
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._command:
            self._keeping = asyncio.create_task(self._keep(self._command))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._left = True  # rather than cancel: that would also break off the wait for a process that is ending
        if self._keeping:
            await self._keeping

    async def gave_up(self) -> None:
        """Returns when there is nothing more to keep."""
        if self._keeping:
            await asyncio.wait({self._keeping})

    @property
    def _ending(self) -> bool:
        return self._left or self._asked_to_end()

    async def _keep(self, command: Sequence[str]) -> None:
        delay = self._first_delay_s
        while not self._ending:
            started = time.monotonic()
            why = await self._run(command)
            if why is None:
                return
            if time.monotonic() - started >= self._steady_s:
                delay = self._first_delay_s
            if isinstance(why, int) and why in self._fatal:
                self.error = f"the {self._name} can not run: {self._fatal[why]}"
                log.error(self.error)
                return
            how = _described(why)
            self.error = f"the {self._name} ended with {how}; the service's log has what it said"
            log.error("the %s ended with %s, it is started again in %g s", self._name, how, delay)
            await self._pause(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    async def _run(self, command: Sequence[str]) -> int | str | None:
        """The status that the process ended with, or why it did not start; None when it was ended from here."""
        try:
            process = self._start(command)
        except OSError as error:
            return str(error)
        self.pid = process.pid
        started = time.monotonic()
        try:
            while not self._ending:
                await asyncio.sleep(POLL_S)
                if (status := process.poll()) is not None:
                    return status
                if time.monotonic() - started >= self._steady_s:
                    self.error = None
            return None
        finally:
            self.pid = None
            await self._end(process)
            if self._on_end:
                self._on_end(process.pid)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # a group of its own from the first moment: Ctrl-C in the terminal is for this process, which ends that one. The
        # event loop offers a session of its own, and Linux shares processors out by session first, so that niceness
        # would count for nothing
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=self._environment, process_group=0)

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # no Event: what `ending` looks at may be set by a signal handler, which can not set one safely
        while not self._ending and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, POLL_S))

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()  # nothing happens to one that has ended
        end = time.monotonic() + self._grace_s
        while process.poll() is None:
            if time.monotonic() > end:
                log.error("the %s has not ended within %g s of SIGTERM, it is killed", self._name, self._grace_s)
                process.kill()
                end = math.inf
            await asyncio.sleep(END_POLL_S)
        assert process.stdin
        process.stdin.close()


def training_worker(settings: Settings, ending: Callable[[], bool]) -> Keeper:
    """The training worker, where the settings ask for one."""
    return Keeper(
        "training worker",
        TRAINING_WORKER if settings.worker else None,
        settings.environment(),
        ending,
        {2: "TensorFlow is not installed, the extra `train` brings it"},
    )


def _described(why: int | str) -> str:
    if isinstance(why, str):
        return why
    return f"status {why}" if why >= 0 else signal.Signals(-why).name
