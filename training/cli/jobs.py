"""`resnext worker` and `resnext jobs`: runs the queue, and looks after it."""

import asyncio
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from training.cli import terminal
from training.cli.terminal import Heading, console
from training.config import MODEL_NAME
from training.errors import TrainingError
from training.jobs.job import DatasetRef, Job, JobState
from training.jobs.jobs import Jobs
from training.jobs.presence import PresenceError
from training.jobs.settings import SharedSettings
from training.jobs.starter import queue_starter
from training.jobs.worker import Worker
from training.runs.console import duration
from training.runs.run import Run
from training.system import lifeline

T = TypeVar("T")

COLUMNS = (
    Heading("job", "whole"),
    Heading("state", "words"),
    Heading("dataset", "text"),
    Heading("model", "text"),
    Heading("worker", "text"),
    Heading("version", "figures"),
)

NOT_INSTALLED = 2
NAME_TAKEN = 3


class NoJobs(TrainingError):
    """A folder of jobs that does not exist."""


class RunWorker(SharedSettings):
    """Runs training jobs, one at a time. For more at once start several workers, each with its own --name."""

    name: str = Field("worker-0", description="a worker goes on with the job that an earlier worker of this name left")
    keep_jobs: int = Field(20, ge=1, description="how many finished jobs stay, the newest")
    keep_versions: int = Field(10, ge=1, description="how many of a model's versions stay beside the active ones")
    starter: bool = Field(
        False, description="queue the starter, the training of a first model, if no version is active"
    )
    model: str = Field(MODEL_NAME, description="name of the model that the starter becomes")
    nice: int = Field(
        0, ge=0, le=19, description="how far jobs stand back when others want the cores, as the command nice"
    )
    lifeline: bool = Field(
        False, description="end when stdin ends: a pipe that the process which started this one holds"
    )

    def cli_cmd(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        if importlib.util.find_spec("tensorflow") is None:
            terminal.error("training needs TensorFlow: pip install 'resnext-service[train]'")
            sys.exit(NOT_INSTALLED)
        os.nice(self.nice)  # before there are threads: each thread has its own, and hands it on to what it starts
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if self.lifeline:
            lifeline.follow(stop.set)
        if self.starter:
            ask(self, lambda jobs: queue_starter(jobs, self.model))
        try:
            Worker(self, self.name, keep_jobs=self.keep_jobs, keep_versions=self.keep_versions).run(stop)
        except PresenceError as error:
            terminal.error(error)
            sys.exit(NAME_TAKEN)


class ListJobs(SharedSettings):
    """Lists the jobs, the newest first."""

    only: list[JobState] = Field([], description="only jobs in these states")
    limit: int = Field(20, ge=1, description="list at most this many")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        page = ask_existing(self, lambda jobs: jobs.list(self.only, limit=self.limit))
        for unreadable in page.unreadable:
            terminal.error(unreadable.error)
        if self.json_:
            sys.stdout.write(json.dumps([job.model_dump(mode="json") for job in page.jobs], indent=2) + "\n")
            return
        terminal.table(COLUMNS, [_row(job) for job in page.jobs])
        console.print(f"{len(page.jobs)} of {page.total}", highlight=False)


class OneJob(SharedSettings):
    """A command about one job."""

    id: CliPositionalArg[str] = Field(description="the job's id")


class ShowJob(OneJob):
    """Shows how far a job is, or how it ended."""

    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        job = ask_existing(self, lambda jobs: jobs.get(self.id))
        if self.json_:
            sys.stdout.write(job.model_dump_json(indent=2) + "\n")
            return
        terminal.table((Heading("", "whole"), Heading("", "text")), list(_facts(job, Jobs(self).run(job.id))))


class CancelJob(OneJob):
    """Takes a job from the queue, or ends its process. What it has done stays: jobs resume goes on from there."""

    def cli_cmd(self) -> None:
        job = ask_existing(self, lambda jobs: jobs.cancel(self.id))
        console.print(f"job {job.id} is {job.state}", highlight=False)


class ResumeJob(OneJob):
    """Queues a cancelled or failed job again. It goes on from its last checkpoint."""

    def cli_cmd(self) -> None:
        job = ask_existing(self, lambda jobs: jobs.resume(self.id))
        console.print(f"job {job.id} is {job.state}, attempt {job.attempt}", highlight=False)


class ReassignJobs(SharedSettings):
    """Queues the jobs of a worker that will not come back, for the other workers."""

    worker_name: CliPositionalArg[str] = Field(description="name of the worker that is gone")

    def cli_cmd(self) -> None:
        moved = ask_existing(self, lambda jobs: jobs.reassign(self.worker_name))
        console.print(f"queued again: {', '.join(job.id for job in moved) or 'none'}", highlight=False)


class PruneJobs(SharedSettings):
    """Deletes finished jobs and their folders. The versions that they published stay."""

    keep: int = Field(20, ge=0, description="how many finished jobs stay: those that ended last")

    def cli_cmd(self) -> None:
        gone = ask_existing(self, lambda jobs: jobs.prune(self.keep))
        console.print(f"deleted jobs: {', '.join(gone) or 'none'}", highlight=False)


class JobsCommand(BaseModel):
    """Lists, shows, cancels and resumes the training jobs."""

    list: CliSubCommand[ListJobs]
    show: CliSubCommand[ShowJob]
    cancel: CliSubCommand[CancelJob]
    resume: CliSubCommand[ResumeJob]
    reassign: CliSubCommand[ReassignJobs]
    prune: CliSubCommand[PruneJobs]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def ask(settings: SharedSettings, question: Callable[[Jobs], Awaitable[T]]) -> T:
    """Opens the jobs for one question."""

    async def answer() -> T:
        jobs = Jobs(settings)
        try:
            return await question(jobs)
        finally:
            await jobs.close()

    return asyncio.run(answer())


def ask_existing(settings: SharedSettings, question: Callable[[Jobs], Awaitable[T]]) -> T:
    """Asks without making a folder. Raises NoJobs where there is none."""
    if not settings.database and not settings.state.is_dir():
        raise NoJobs(f"there are no jobs: the folder {settings.state} does not exist; --state names another")
    return ask(settings, question)


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.id,
        _state(job),
        _name(job.dataset),
        job.config.name,
        job.worker or "-",
        str(job.version or "-"),
    )


def _state(job: Job) -> str:
    """Returns the state, with the phase where that says something: a queued or finished job is in none."""
    return f"{job.state} in {job.phase}" if job.phase and job.state in ("running", "failed", "cancelled") else job.state


def _name(dataset: DatasetRef) -> str:
    return f"{dataset.name}@{dataset.revision}" if dataset.revision else dataset.name


def _facts(job: Job, run: Run) -> Iterator[tuple[str, str]]:
    """Yields everything about a job, as names and values."""
    yield "job", job.id
    yield "state", _state(job)
    if job.reason:
        yield "reason", job.reason
    yield "priority", str(job.priority)
    yield "attempt", str(job.attempt)
    for name in ("created", "started", "finished"):
        time = getattr(job, name)
        yield name, terminal.moment(time) if time else "-"
    yield "worker", job.worker or "-"
    yield "dataset", _name(job.dataset)
    yield "fingerprint", job.dataset.fingerprint or "-"
    yield "model", job.config.name
    yield "version", str(job.version or "-")
    for phase in job.progress.phases:
        yield phase.name, duration(phase.seconds) + ("" if phase.done else ", not done")
    yield "folder", str(run.folder)
