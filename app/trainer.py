"""The training worker that the service keeps alive beside itself: `python -m training worker`, a process of its own."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

NOT_INSTALLED = 2  # the worker's exit status without TensorFlow
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # a worker that lived so long is started again as if it were the first time
GRACE_S = 10.0  # between SIGTERM and SIGKILL; the worker needs up to 3
POLL_S = 0.2

log = logging.getLogger(__name__)


class Trainer:
    """Keeps `command` running from entering the context to leaving it, or until `draining` says so.

    Its stdin is a pipe that closes when this process is gone, however it went; what it prints joins the service's.
    Without a command there is nothing to keep.
    """

    def __init__(
        self,
        command: Sequence[str] | None,
        environment: Mapping[str, str],
        draining: Callable[[], bool],
        *,
        first_delay_s: float = FIRST_DELAY_S,
        steady_s: float = STEADY_S,
    ) -> None:
        self.error: str | None = None
        self.pid: int | None = None
        self._command = command
        self._environment = environment
        self._draining = draining
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

    @property
    def _ending(self) -> bool:
        return self._left or self._draining()

    async def _keep(self, command: Sequence[str]) -> None:
        delay = self._first_delay_s
        while not self._ending:
            started = time.monotonic()
            why = await self._run(command)
            if why is None:
                return
            if time.monotonic() - started >= self._steady_s:
                delay = self._first_delay_s
            if why == f"status {NOT_INSTALLED}":
                self.error = "the training worker can not run: TensorFlow is not installed, the extra `train` brings it"
                log.error(self.error)
                return
            self.error = f"the training worker ended with {why}; the service's log has what it said"
            log.error("the training worker ended with %s, it is started again in %g s", why, delay)
            await self._pause(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    async def _run(self, command: Sequence[str]) -> str | None:
        """How the process ended; None when it was ended from here."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the service, which then ends it
            )
        except OSError as error:
            return str(error)
        self.pid = process.pid
        ended = asyncio.create_task(process.wait())
        started = time.monotonic()
        try:
            while not self._ending:
                done, _ = await asyncio.wait({ended}, timeout=POLL_S)
                if done:
                    return _described(ended.result())
                if time.monotonic() - started >= self._steady_s:
                    self.error = None
            return None
        finally:
            self.pid = None
            if process.returncode is None:
                await _end(process, ended)

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # no Event: `draining` is set by a signal handler, which can not set one safely
        while not self._ending and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, POLL_S))


def _described(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


async def _end(process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
    with contextlib.suppress(ProcessLookupError):  # it ends in this moment
        process.terminate()
    done, _ = await asyncio.wait({ended}, timeout=GRACE_S)
    if not done:
        log.error("the training worker has not ended within %g s of SIGTERM, it is killed", GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended
