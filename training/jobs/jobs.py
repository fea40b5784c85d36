"""The training jobs: a durable queue in a database, a folder of files for each job.

Each attempt at a job is one workflow of the engine (DBOS): the first has the job's id, the n-th has `<id>.<n>`. The
state of the newest attempt is the job's. Only the job's folder carries over from one attempt to the next. Jobs are made
and read here; `training.jobs.worker` runs them. The engine takes more than a second to import, so it is imported at the
first use, in a thread.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from training.config import TrainConfig
from training.jobs import presence
from training.jobs.attempts import (
    MIDDLE,
    Attempts,
    attempt_id,
    by_job,
    job_and_attempt,
    new_id,
    number,
    outcome_of,
    priority_of,
    request_of,
)
from training.jobs.database import PATIENCE_S, JobsDatabase
from training.jobs.job import (
    UNFINISHED,
    DatasetRef,
    Job,
    JobDamaged,
    JobFinished,
    JobNotFound,
    JobNotResumable,
    JobRequest,
    JobState,
    JobStatus,
    JobsUnavailable,
    KeyReused,
    UnreadableJob,
    WorkerAlive,
)
from training.jobs.presence import WorkerInfo
from training.jobs.reading import job_of
from training.jobs.settings import SharedSettings
from training.runs.run import Run

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions, WorkflowStatus

QUEUE = "training"
WORKFLOW = "training"
ENGINE_VERSION = "1"  # by default a hash of the code: an edit would strand the jobs of the day before

logger = logging.getLogger(__name__)


class Page(NamedTuple):
    """A page of the jobs, the newest first, and how many there are in all. Those that cannot be read stand apart."""

    jobs: list[Job]
    total: int
    unreadable: list[UnreadableJob]


# names for list types: inside Jobs, `list` is a method
JobList = list[Job]
Ids = list[str]
Workers = list[WorkerInfo]


class Jobs:
    """The jobs of one installation. Every call may raise JobsUnavailable; the next call connects again."""

    def __init__(self, settings: SharedSettings, patience_s: float = PATIENCE_S) -> None:
        self.settings = settings
        self.presence = settings.state / "workers"
        self._database = JobsDatabase(settings, patience_s)

    async def open(self) -> None:
        """Connects, and makes the tables where there are none. Logs a database that is away, and raises nothing."""
        try:
            await self._database.ask(lambda _: None)
        except JobsUnavailable as error:
            logger.error("%s; the next use tries again", error)

    async def close(self) -> None:
        """Disconnects."""
        await self._database.close()

    async def submit(
        self, config: TrainConfig, dataset: DatasetRef, *, priority: int = 0, key: str | None = None
    ) -> tuple[Job, bool]:
        """Queues a job. Returns it, and False where the same key had made it before.

        A key is known as long as its job exists. Raises KeyReused when the key belongs to a job of another config,
        dataset or priority. The revision is not compared: a client that sends its request again means the same job,
        even when a newer revision was uploaded in between.
        """
        return await self._database.ask(lambda client: self._submit(client, config, dataset, priority, key))

    async def get(self, id: str) -> Job:
        """Returns a job, with what its files say. Raises JobNotFound, JobDamaged."""
        return await self._database.ask(lambda client: self._get(client, id))

    async def status(self, id: str) -> JobStatus:
        """Returns a job's attempt and state. Cheaper than `get`, which reads the job's files. Raises JobNotFound."""
        return await self._database.ask(lambda client: self._status(self._attempts(client, id)))

    async def list(self, states: Collection[JobState] = (), limit: int = 50, offset: int = 0) -> Page:
        """Returns a page of the jobs in these states (none: all), the newest first, and the number of all such jobs.

        The page has `limit` jobs, those included that cannot be read.
        """
        return await self._database.ask(lambda client: self._list(client, states, limit, offset))

    async def states(self) -> dict[str, JobStatus]:
        """Returns attempt and state of every job, by id. Cheaper than `list`, which reads the jobs' files."""
        return await self._database.ask(self._states)

    async def cancel(self, id: str) -> Job:
        """Takes a job from the queue, or ends its process within about two seconds.

        Raises JobNotFound, JobFinished; JobDamaged after it has cancelled a job that cannot be read.
        """
        return await self._database.ask(lambda client: self._cancel(client, id))

    async def resume(self, id: str) -> Job:
        """Queues a cancelled or failed job again, to go on where it was.

        Raises JobNotFound, JobNotResumable, JobDamaged.
        """
        return await self._database.ask(lambda client: self._resume(client, id))

    async def reassign(self, worker: str) -> JobList:
        """Queues the jobs of a worker that will not come back; those that cannot be read are cancelled.

        Raises WorkerAlive.
        """
        return await self._database.ask(lambda client: self._reassign(client, worker))

    async def using(self, dataset: str) -> dict[str, int | None]:
        """Returns the unfinished jobs that train on a dataset, by id, each with its revision.

        A job that cannot be read uses none: a worker fails it before it trains.
        """
        return await self._database.ask(lambda client: self._using(client, dataset))

    async def prune(self, keep: int) -> Ids:
        """Deletes all finished jobs but the `keep` that ended last, with their folders. Returns the deleted ids."""
        return await self._database.ask(lambda client: self._prune(client, keep))

    async def prepare(self, poll_s: float) -> None:
        """Sets up the queue: each worker looks every `poll_s` seconds and takes one job at a time."""
        await self._database.ask(
            lambda client: client.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=poll_s)
        )

    def run(self, id: str) -> Run:
        """Returns a job's folder, which exists once a worker has begun the job."""
        return Run(self.settings.jobs.absolute() / id)

    def workers(self) -> Workers:
        """Returns the workers that share this STATE folder."""
        return presence.workers(self.presence)

    def _submit(
        self, client: "DBOSClient", config: TrainConfig, dataset: DatasetRef, priority: int, key: str | None
    ) -> tuple[Job, bool]:
        request = JobRequest(config=config, dataset=dataset)
        while not self._enqueue(client, id := new_id(key), 1, priority, request):
            if key is None:
                continue  # two jobs in the same quarter of a millisecond drew the same number
            job = self._get(client, id)
            if (job.config, job.dataset.name, job.priority) != (config, dataset.name, priority):
                raise KeyReused(
                    f"idempotency key {key!r} belongs to job {id}, which was submitted with another config, dataset or "
                    "priority: send a new key for a new job"
                )
            return job, False
        return self._get(client, id), True

    def _enqueue(self, client: "DBOSClient", id: str, attempt: int, priority: int, request: JobRequest) -> bool:
        """Returns False where the attempt exists already: of many calls at once, the database lets one make it."""
        from training.jobs.engine import error

        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": attempt_id(id, attempt),
            "workflow_id_reuse_policy": "reject",
            "app_version": ENGINE_VERSION,
            "priority": MIDDLE - priority,
        }
        try:
            client.enqueue(options, id, request.model_dump(mode="json"))
        except error.DBOSWorkflowIDInUseError:
            return False
        return True

    def _attempts(self, client: "DBOSClient", id: str) -> Attempts:
        """Returns the attempts at a job, the oldest first. Raises JobNotFound."""
        rows = client.list_workflows(workflow_id_prefix=id, name=WORKFLOW) if re.fullmatch(r"[a-z0-9-]+", id) else []
        attempts = by_job(rows).get(id)
        if not attempts:
            raise JobNotFound(f"there is no job {id!r}")
        return attempts

    def _get(self, client: "DBOSClient", id: str) -> Job:
        return self._job(self._attempts(client, id))

    def _list(self, client: "DBOSClient", states: Collection[JobState], limit: int, offset: int) -> Page:
        everything = by_job(client.list_workflows(name=WORKFLOW, load_input=False)).values()
        wanted = [rows for rows in everything if not states or self._state(rows[-1]) in states]
        wanted.sort(key=lambda rows: (number(rows[0].created_at), rows[0].workflow_id), reverse=True)
        page = wanted[offset : offset + limit]
        ids = [row.workflow_id for rows in page for row in rows]
        full = by_job(client.list_workflows(workflow_ids=ids) if ids else [])
        found = Page([], len(wanted), [])
        for id in (job_and_attempt(rows[0].workflow_id)[0] for rows in page):
            if id not in full:
                continue  # it was pruned just now
            try:
                found.jobs.append(self._job(full[id]))
            except JobDamaged as error:
                found.unreadable.append(UnreadableJob(id=id, error=str(error)))
        return found

    def _states(self, client: "DBOSClient") -> dict[str, JobStatus]:
        jobs = by_job(client.list_workflows(name=WORKFLOW, load_input=False))
        return {id: self._status(rows) for id, rows in jobs.items()}

    def _status(self, attempts: Attempts) -> JobStatus:
        _, attempt = job_and_attempt(attempts[-1].workflow_id)
        return JobStatus(attempt, self._state(attempts[-1]))

    def _cancel(self, client: "DBOSClient", id: str) -> Job:
        newest = self._attempts(client, id)[-1]
        state = self._state(newest)
        if state in ("queued", "running"):
            client.cancel_workflow(newest.workflow_id)
        job = self._get(client, id)
        if state not in UNFINISHED or job.state not in ("cancelling", "cancelled"):  # the job may have ended in between
            raise JobFinished(f"there is nothing to cancel: job {id} has ended ({job.state})")
        return job

    def _resume(self, client: "DBOSClient", id: str) -> Job:
        attempts = self._attempts(client, id)
        state = self._state(attempts[-1])
        if state not in ("cancelled", "failed"):
            raise JobNotResumable(f"only a cancelled or failed job can be resumed; the state of job {id} is {state}")
        self._again(client, attempts)
        return self._get(client, id)

    def _again(self, client: "DBOSClient", attempts: Attempts) -> None:
        newest = attempts[-1]
        id, attempt = job_and_attempt(newest.workflow_id)
        self._enqueue(client, id, attempt + 1, priority_of(newest), request_of(newest))

    def _reassign(self, client: "DBOSClient", worker: str) -> JobList:
        if any(known.name == worker and known.alive for known in self.workers()):
            raise WorkerAlive(f"worker {worker} is alive: only the jobs of a worker that is gone can go to others")
        moved = []
        for row in client.list_workflows(name=WORKFLOW, executor_id=worker, status="PENDING"):
            client.cancel_workflow(row.workflow_id)
            id, _ = job_and_attempt(row.workflow_id)
            try:
                self._again(client, self._attempts(client, id))
                moved.append(self._get(client, id))
            except JobDamaged as error:
                logger.warning("%s; it stays cancelled", error)
        presence.forget(self.presence, worker)
        return moved

    def _using(self, client: "DBOSClient", dataset: str) -> dict[str, int | None]:
        refs = {}
        for id, rows in by_job(client.list_workflows(name=WORKFLOW, load_output=False)).items():
            with contextlib.suppress(JobDamaged):
                ref = request_of(rows[-1]).dataset
                if ref.name == dataset and self._unfinished(rows[-1]):
                    refs[id] = ref.revision
        return refs

    def _unfinished(self, row: "WorkflowStatus") -> bool:
        """Whether the attempt is not over. The row needs no output, unlike for `_state`."""
        may_go_on = row.status in ("ENQUEUED", "DELAYED", "PENDING", "CANCELLED")
        return may_go_on and self._state(row) in UNFINISHED

    def _prune(self, client: "DBOSClient", keep: int) -> Ids:
        jobs = by_job(client.list_workflows(name=WORKFLOW, load_input=False))
        over = [id for id, rows in jobs.items() if self._state(rows[-1]) not in UNFINISHED]
        # the time is in whole seconds on SQLite before Python 3.12: within a second, the job submitted later stays
        over.sort(key=lambda id: (number(jobs[id][-1].completed_at), id), reverse=True)
        for id in (gone := over[keep:]):
            if (folder := self.run(id).folder).exists():
                shutil.rmtree(folder)  # before the record: the next prune finds what a crash left
            client.delete_workflows([row.workflow_id for row in jobs[id]])
        return gone

    def _state(self, row: "WorkflowStatus") -> JobState:
        match row.status:
            case "ENQUEUED" | "DELAYED":
                return "queued"
            case "PENDING":
                return "running"
            case "SUCCESS":
                outcome = outcome_of(row)
                return outcome.state if outcome else "failed"
            case "CANCELLED":
                id, _ = job_and_attempt(row.workflow_id)
                at_work = any(worker.alive and worker.job == id for worker in self.workers())
                return "cancelling" if at_work or self.run(id).busy() else "cancelled"
            case _:
                return "failed"

    def _job(self, attempts: Attempts) -> Job:
        """Makes a job of all its attempts. The newest row needs its input and output. Raises JobDamaged."""
        id, _ = job_and_attempt(attempts[-1].workflow_id)
        return job_of(attempts, self._state(attempts[-1]), self.run(id), self.settings.state)
