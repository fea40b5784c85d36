"""The training jobs as the service asks for them: in limited time, with errors in its own words."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping

from app import errors
from training.jobs import job
from training.jobs.job import JobStatus
from training.jobs.jobs import Jobs

LIMIT_S = 5.0  # a database that is away may not say so for minutes
MAX_AGE_S = 1.0


@contextlib.asynccontextmanager
async def jobs_told(limit: float = LIMIT_S) -> AsyncIterator[None]:
    """What `training.jobs.jobs` raises becomes what a client is told; JobsUnavailable also after `limit` seconds.

    A request that was given up may still be carried out: there is no calling a thread back.
    """
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise errors.JobsUnavailable(f"the jobs' database has not answered within {limit:g} s") from None
    except job.JobsUnavailable as error:
        raise errors.JobsUnavailable(str(error)) from None
    except job.JobNotFound as error:
        raise errors.JobNotFound(str(error)) from None
    except job.JobFinished as error:
        raise errors.JobFinished(str(error)) from None
    except job.JobNotResumable as error:
        raise errors.JobNotResumable(str(error)) from None
    except job.KeyReused as error:
        raise errors.IdempotencyKeyReused(str(error)) from None


class JobStates:
    """The state of every job, a second old at most: one question at a time, however many follow a job or its health."""

    def __init__(self, jobs: Jobs, max_age: float = MAX_AGE_S) -> None:
        self._jobs = jobs
        self._max_age = max_age
        self._asking: asyncio.Task[Mapping[str, JobStatus] | job.JobsUnavailable] | None = None
        self._answered = 0.0

    async def all(self, limit: float = LIMIT_S) -> Mapping[str, JobStatus]:
        """By id. Raises errors.JobsUnavailable after `limit` seconds at the latest."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered > self._max_age):
            self._asking = asyncio.create_task(self._ask())
        async with jobs_told(limit):
            answer = await asyncio.shield(self._asking)  # others wait for it too
            if isinstance(answer, job.JobsUnavailable):
                raise answer
            return answer

    async def of(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """Raises errors.JobNotFound, errors.JobsUnavailable."""
        return (await self.all(limit)).get(id) or await self.now(id, limit)  # it may be younger than the answer

    async def now(self, id: str, limit: float = LIMIT_S) -> JobStatus:
        """As `of`, asked anew: what a client has just done counts."""
        async with jobs_told(limit):
            found = await self._jobs.status(id)
        if self._asking and self._asking.done():
            self._asking = None
        return found

    async def _ask(self) -> Mapping[str, JobStatus] | job.JobsUnavailable:
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._jobs.states()
        except TimeoutError:  # the next one asks anew: this connection may never come back
            return job.JobsUnavailable(f"the jobs' database has not answered within {LIMIT_S:g} s")
        except job.JobsUnavailable as error:
            return error  # not raised: there may be nobody left to take it
        finally:
            self._answered = time.monotonic()
