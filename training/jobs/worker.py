"""The worker: takes jobs from the queue, one at a time, and runs their phases in two processes of their own.

A phase is one step of the engine (DBOS): a worker that was killed goes on at its next start with the phase that it was
in. The engine takes more than a second to import, so it is imported as the worker starts.
"""

import asyncio
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.datasets.store import DatasetStore, DatasetStoreError
from training.errors import TrainingError
from training.jobs.attempts import MAX_RECOVERIES, job_and_attempt
from training.jobs.database import APPLICATION
from training.jobs.job import DatasetRef, JobDamaged, JobRequest, JobState
from training.jobs.jobs import ENGINE_VERSION, WORKFLOW, Jobs
from training.jobs.presence import Presence
from training.jobs.progress_log import progress_logged
from training.jobs.settings import SharedSettings
from training.runs.progress import PHASES, Phase
from training.runs.records import PublishRecord, head_that_stays
from training.runs.run import Run
from training.system.child import ChildKilled, end_children, run_child

Command = Callable[[Run, Sequence[Phase]], list[str]]

# Phases that share a process, since to start one and to import its libraries takes a second or two. The process that
# imports TensorFlow ends before the service loads the version: it may hold most of a GPU's memory.
PROCESSES: tuple[tuple[Phase, ...], ...] = (
    ("checking", "training", "exporting"),
    ("verifying", "gating", "quantizing", "publishing"),
)

ENDS: dict[JobState, str] = {"succeeded": "has succeeded", "rejected": "was rejected", "failed": "has failed"}
RESTARTS = 3  # of a phase whose process was ended by a signal, mostly from the system, which lacks memory

logger = logging.getLogger(__name__)


class AttemptResult(TypedDict):
    """The result of an attempt, which the engine keeps."""

    state: JobState
    reason: str | None


class PhaseFailed(TrainingError):
    """A phase that failed. The message becomes the job's reason."""


class Worker:
    """A process that runs jobs under a name until it is stopped. The next start under that name goes on with its job.

    `command` gives the command line of some phases, which leaves the record of each or prints why it could not. The
    worker looks at the queue every `poll_s` seconds.
    """

    def __init__(
        self,
        settings: SharedSettings,
        name: str,
        *,
        keep_jobs: int = 20,
        keep_versions: int = 10,
        command: Command | None = None,
        poll_s: float = 0.5,
    ) -> None:
        self.settings, self.name = settings, name
        self.keep_jobs, self.keep_versions = keep_jobs, keep_versions
        self.command = command or _phase_program(settings.models)
        self.poll_s = poll_s
        self.jobs = Jobs(settings)
        self.presence = Presence(settings.state / "workers", name)

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set. The next start goes on with the job that is running then.

        Raises PresenceError when another process has the name, JobsUnavailable when the database is away.
        """
        import training.jobs.engine  # noqa: F401  # before the name is taken: a predecessor may work meanwhile

        with self.presence.held(stop):
            if not stop.is_set():
                self._serve(stop)

    def _serve(self, stop: threading.Event) -> None:
        from training.jobs.engine import DBOS, DBOSConfig, DBOSPortableJSONSerializer, wait_for_database

        asyncio.run(self.jobs.prepare(self.poll_s))
        wait_for_database(stop)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self.settings.database_url,
            "executor_id": self.name,
            "application_version": ENGINE_VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": 0.25,  # a stop waits for one interval
        }
        DBOS(config=config)
        logging.getLogger("dbos").addFilter(_unexpected)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)
        async def training(id: str, request: dict[str, Any]) -> AttemptResult:  # Any: JSON, which JobRequest checks
            own, _ = job_and_attempt(DBOS.workflow_id or "")
            if id != own:  # it names the folder to write in
                raise JobDamaged(f"the row of job {own} holds the request of another one, {str(id)[:80]!r}")
            return await self._work(id, request)

        try:
            DBOS.launch()
            logger.info("worker %s waits for jobs in %s", self.name, self.settings.state)
            stop.wait()
        finally:
            DBOS.destroy()
            end_children()  # on a busy machine the engine's loop ends before a phase learns that it is cancelled
        logger.info("worker %s ends", self.name)

    async def _work(self, id: str, request: dict[str, Any]) -> AttemptResult:
        """Makes one attempt at a job."""
        run = self.jobs.run(id)
        self.presence.says(id)
        try:
            outcome = await self._phases(run, request)
            logger.info("job %s %s%s", id, ENDS[outcome["state"]], f": {why}" if (why := outcome["reason"]) else "")
            await self._tidy(run, finished=outcome["state"] != "failed")
            return outcome
        except asyncio.CancelledError:
            logger.info("job %s is left for the next start", id)
            raise
        except BaseException:  # the engine's own for a cancelled job is not an Exception
            logger.info("job %s is cancelled", id)
            raise
        finally:
            self.presence.says(None)

    async def _phases(self, run: Run, request: dict[str, Any]) -> AttemptResult:
        try:
            await asyncio.to_thread(self._claim, run, JobRequest.model_validate(request))
            for phase in PHASES:
                await self._step(run, phase)
            verdict = run.record("gating", Verdict)
            if not verdict.passed and head_that_stays(run) is None:
                return {"state": "rejected", "reason": "; ".join(verdict.reasons)}
            return {"state": "succeeded", "reason": None}
        except (TrainingError, OSError) as error:  # OSError: a full disk, a folder that is gone
            return {"state": "failed", "reason": str(error)}
        except Exception as error:
            logger.exception("job %s failed on an error that the worker does not know", run.name)
            return {"state": "failed", "reason": f"{type(error).__name__}: {error}"}

    def _claim(self, run: Run, request: JobRequest) -> None:
        """Makes the job's folder, or goes on in it, with the place of the images on this machine."""
        images = images_of(self.settings.datasets, request.dataset)
        config = request.config.model_copy(update={"data": images})
        if run.config_file.exists():
            from training.runs.resume import resume  # it imports what decodes images

            resume(run, config)
        else:
            run.claim(config)

    async def _step(self, run: Run, phase: Phase) -> None:
        """Runs a phase as a step of the engine. Raises PhaseFailed."""
        from dbos import DBOS

        # preemptible: the engine cancels the step about a second after the job is cancelled. The reason is the step's
        # result, not an exception: for a replayed step the engine keeps an exception's words, not its class
        reason = await DBOS.run_step_async({"name": phase, "preemptible": True}, self._run_phase, run, phase)
        if reason:
            raise PhaseFailed(reason)

    async def _run_phase(self, run: Run, phase: Phase) -> str | None:
        """Runs a phase, and those after it that share its process. Returns why one failed, None when it is done."""
        phases = next(phases[phases.index(phase) :] for phases in PROCESSES if phase in phases)
        for _ in range(1 + RESTARTS):
            if run.done(phase):
                return None
            try:
                async with progress_logged(run):
                    await run_child(self.command(run, phases), run.log, self.settings.environment_of_child())
            except ChildKilled as error:
                killed = str(error)
                logger.warning("job %s: the %s process was killed by %s", run.name, phase, killed)
                continue
            except (TrainingError, OSError) as error:
                return str(error)
            return None if run.done(phase) else f"the {phase} process ended well but left no record"
        question = ": out of memory?" if killed == "SIGKILL" else ""
        return f"the {phase} process was killed by {killed} {1 + RESTARTS} times{question}"

    async def _tidy(self, run: Run, *, finished: bool) -> None:
        """Deletes what fills the disk and is no longer needed; docs/jobs.md says what stays."""
        try:
            if finished:
                await asyncio.to_thread(shutil.rmtree, run.checkpoints, ignore_errors=True)
                repository = ModelRepository(self.settings.models, run.config().name)
                made = run.record("publishing", PublishRecord).version if run.done("publishing") else None
                await asyncio.to_thread(repository.prune, self.keep_versions, spared=made)
            await self.jobs.prune(self.keep_jobs - 1)  # this job is about to be the newest
        except (TrainingError, OSError) as error:
            logger.warning("could not tidy up after job %s: %s", run.name, error)


def _unexpected(record: logging.LogRecord) -> bool:
    """Whether to keep a record: the engine logs a traceback for each cancelled job and each worker that stops."""
    error = record.exc_info[1] if record.exc_info else None
    expected = "was cancelled during execution", "Asyncio task cancelled for workflow or step"
    return type(error).__name__ != "DBOSAwaitedWorkflowCancelledError" and not any(
        words in record.getMessage() for words in expected
    )


def images_of(datasets: Path, ref: DatasetRef) -> Path:
    """Returns the folder of a job's images. Raises DatasetStoreError."""
    folder, revision, fingerprint = DatasetStore(datasets).resolve(ref.name, ref.revision)
    if (revision, fingerprint) != (ref.revision, ref.fingerprint or fingerprint):
        raise DatasetStoreError(f"dataset {ref.name!r} has been replaced since the job was submitted: submit a new job")
    return folder.absolute()


def _phase_program(models: Path) -> Command:
    return lambda run, phases: [
        *[sys.executable, "-m", "training.phases", str(run.folder), *phases],
        *["--models", str(models)],
    ]
