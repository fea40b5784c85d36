"""The training jobs as the service asks for them: in limited time."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from training.jobs.job import JobStatus, JobsUnavailable
from training.jobs.jobs import Jobs

T = TypeVar("T")

LIMIT_S = 5.0  # a database that is away may not say so for minutes
MAX_AGE_S = 1.0


async def answered(asked: Awaitable[T], limit: float = LIMIT_S) -> T:
    """Awaits what was asked of the jobs' database. Raises JobsUnavailable after `limit` seconds, and what it raises.

    A request that was given up may still be carried out: a thread cannot be called back.
    """
    try:
        async with asyncio.timeout(limit):
            return await asked
    except TimeoutError:
        raise JobsUnavailable(f"the jobs' database has not answered within {limit:g} s") from None


class JobStates:
    """The state of every job, a second old at most: one question at a time, however many follow a job or its health."""

    def __init__(self, jobs: Jobs, max_age: float = MAX_AGE_S) -> None:
        self._jobs = jobs
        self._max_age = max_age
        self._asking: asyncio.Task[Mapping[str, JobStatus] | JobsUnavailable] | None = None
        self._answered = 0.0

    async def all(self, limit: float = LIMIT_S) -> Mapping[str, JobStatus]:
        """By id. Raises JobsUnavailable after `limit` seconds at the latest."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered > self._max_age):
            self._asking = asyncio.create_task(self._ask())
        answer = await answered(asyncio.shield(self._asking), limit)  # others wait for it too
        if isinstance(answer, JobsUnavailable):
            raise answer
        return answer

    async def of(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """Raises JobNotFound, JobsUnavailable."""
        return (await self.all(limit)).get(id) or await self.now(id, limit)  # it may be younger than the answer

    async def now(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """As `of`, asked anew: what a client has just done counts."""
        found = await answered(self._jobs.status(id), limit)
        if self._asking and self._asking.done():
            self._asking = None
        return found

    async def _ask(self) -> Mapping[str, JobStatus] | JobsUnavailable:
        try:
            return await answered(self._jobs.states())
        except JobsUnavailable as error:
            return error  # not raised: there may be nobody left to take it
        finally:
            self._answered = time.monotonic()
