"""The service's questions to the jobs' database, with a time limit."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from training.jobs.job import JobStatus, JobsUnavailable
from training.jobs.jobs import Jobs

T = TypeVar("T")

LIMIT_S = 5.0  # an unreachable database may not fail for minutes
PATIENCE_S = 4.0  # a question that waits for a lock ends before: what was refused is not carried out afterwards
MAX_AGE_S = 1.0


async def answered(asked: Awaitable[T], limit: float = LIMIT_S) -> T:
    """Awaits an answer of the jobs' database. Raises JobsUnavailable after `limit` seconds, and what `asked` raises.

    A request that was given up may still be carried out, since a thread cannot be stopped.
    """
    try:
        async with asyncio.timeout(limit):
            return await asked
    except TimeoutError:
        raise JobsUnavailable(f"the jobs' database has not answered within {limit:g} s") from None


class JobStates:
    """The states of all jobs, at most `max_age` seconds old.

    The database gets one question at a time, however many clients follow jobs or ask for the health.
    """

    def __init__(self, jobs: Jobs, max_age: float = MAX_AGE_S) -> None:
        self._jobs = jobs
        self._max_age = max_age
        self._asking: asyncio.Task[Mapping[str, JobStatus] | JobsUnavailable] | None = None
        self._answered = 0.0

    async def all(self, limit: float = LIMIT_S) -> Mapping[str, JobStatus]:
        """Returns the states by job id. Raises JobsUnavailable, after `limit` seconds at the latest."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered > self._max_age):
            self._asking = asyncio.create_task(self._ask())
        answer = await answered(asyncio.shield(self._asking), limit)  # other callers wait for the same task
        if isinstance(answer, JobsUnavailable):
            raise answer
        return answer

    async def of(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """Returns one job's state, at most `max_age` seconds old. Raises JobNotFound, JobsUnavailable."""
        return (await self.all(limit)).get(id) or await self.now(id, limit)  # the job may be newer than the answer

    async def now(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """Returns one job's state from a new question, so that a change just made shows. Raises like `of`."""
        found = await answered(self._jobs.status(id), limit)
        if self._asking and self._asking.done():
            self._asking = None
        return found

    async def _ask(self) -> Mapping[str, JobStatus] | JobsUnavailable:
        try:
            return await answered(self._jobs.states())
        except JobsUnavailable as error:
            return error  # not raised: nobody may be left to await this task
        finally:
            self._answered = time.monotonic()
