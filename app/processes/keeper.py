"""Keeps a process running beside this one: the training worker, or one of several that serve."""

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
STEADY_S = 60.0  # after a life this long the delay before a restart is FIRST_DELAY_S again
GRACE_S = 10.0  # between SIGTERM and SIGKILL
POLL_S = 0.2
END_POLL_S = 0.02

NICENESS = 10  # a training gets a ninth of the requests' processor time, or all of it while there are no requests
TRAINING_WORKER = (sys.executable, "-m", "training", "worker", "--lifeline", "--nice", str(NICENESS))

logger = logging.getLogger(__name__)


class Keeper:
    """A process that runs `command` and is started again when it dies, while the context is open and not `ending`.

    The process' stdin is a pipe that closes when this process ends, in whatever way; its output joins the service's,
    unless its stderr is to be the descriptor `stderr`. Messages call the process `name`. `fatal` maps the exit statuses
    after which a restart would not help to the reason. `on_end` is called with the id of each process that has
    ended. Without a command nothing is started.
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
        stderr: int | None = None,
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
        self._stderr = stderr
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
        self._left = True  # not cancel(): that would also break off the wait for a process that is ending
        if self._keeping:
            await self._keeping

    async def gave_up(self) -> None:
        """Waits until no process is kept any more."""
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
                self.error = f"the {self._name} cannot run: {self._fatal[why]}"
                logger.error(self.error)
                return
            how = _described(why)
            self.error = f"the {self._name} ended with {how}; the service's log has its output"
            logger.error("the %s ended with %s and is started again in %g s", self._name, how, delay)
            await self._pause(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    async def _run(self, command: Sequence[str]) -> int | str | None:
        """Returns the exit status, or why the process did not start, or None when it was ended here."""
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
        # its own process group from the first moment: Ctrl-C in the terminal reaches this process, which then ends the
        # child. asyncio offers only a new session, and Linux divides processor time between sessions first, so that
        # niceness would have no effect
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=self._stderr, env=self._environment, process_group=0
        )

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # polled, without an Event: what `ending` reads may be set by a signal handler, which cannot set an Event safely
        while not self._ending and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, POLL_S))

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()  # does nothing to a process that has ended
        end = time.monotonic() + self._grace_s
        while process.poll() is None:
            if time.monotonic() > end:
                logger.error("the %s has not ended within %g s of SIGTERM and is killed", self._name, self._grace_s)
                process.kill()
                end = math.inf
            await asyncio.sleep(END_POLL_S)
        assert process.stdin
        process.stdin.close()


def training_worker(settings: Settings, ending: Callable[[], bool]) -> Keeper:
    """Returns a keeper of the training worker, which keeps nothing where the settings ask for no worker."""
    return Keeper(
        "training worker",
        TRAINING_WORKER if settings.worker else None,
        settings.environment_of_worker(),
        ending,
        {2: "TensorFlow is not installed; install the extra `train`"},
    )


def _described(why: int | str) -> str:
    if isinstance(why, str):
        return why
    return f"status {why}" if why >= 0 else signal.Signals(-why).name
