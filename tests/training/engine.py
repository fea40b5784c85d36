"""Jobs with real workers: processes that a test starts, holds at a point and kills."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy

from tests.process import ROOT, environment, until
from training.config import TrainConfig
from training.jobs.job import DatasetRef, Job, JobState
from training.jobs.jobs import Jobs
from training.jobs.settings import SharedSettings

T = TypeVar("T")
Process = subprocess.Popen[bytes]


def ask(answer: Coroutine[Any, Any, T]) -> T:  # Any: what coroutines send and receive
    return asyncio.run(answer)


def gone(pid: int) -> bool:
    """Whether the process has ended, even if nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while it is read
        return True


def spoil(settings: SharedSettings, attempt: str, **columns: str | None) -> None:
    """Overwrites columns of an attempt's row in the database, as damage or an intruder would."""
    engine = sqlalchemy.create_engine(settings.database_url)
    with engine.begin() as connection:
        schema = "" if connection.dialect.name == "sqlite" else "dbos."
        for name, table in (("inputs", "workflow_input"), ("output", "workflow_output")):
            if name in columns:  # where the engine keeps it first
                statement = f"DELETE FROM {schema}{table} WHERE workflow_uuid = :attempt"
                connection.execute(sqlalchemy.text(statement), {"attempt": attempt})
        values = ", ".join(f"{name} = :{name}" for name in columns)
        statement = f"UPDATE {schema}workflow_status SET {values} WHERE workflow_uuid = :attempt"
        assert connection.execute(sqlalchemy.text(statement), {**columns, "attempt": attempt}).rowcount == 1
    engine.dispose()


class Engine:
    """One installation: folders, a database, the jobs, and the workers that were started."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.settings = {name: str(folder / name) for name in ("models", "datasets", "state")}
        if database:
            self.settings["database"] = database
        self.shared = SharedSettings.model_validate(self.settings)
        for label in ("rose", "tulip"):
            (self.shared.datasets / "photos" / label).mkdir(parents=True)
        self.points = self.shared.state / "points"
        self.points.mkdir(parents=True)
        self.jobs = Jobs(self.shared)
        self.workers: list[Process] = []

    def submit(self, key: str | None = None, priority: int = 0, **config: object) -> Job:
        wanted = TrainConfig.model_validate({"data": "photos", **config})
        return ask(self.jobs.submit(wanted, DatasetRef(name="photos"), priority=priority, key=key))[0]

    def worker(self, name: str = "worker-0", kind: str = "worker") -> Process:
        """Starts a worker. The kind fast does nothing in each phase."""
        log = (self.shared.state / "workers.log").open("ab")
        with log:
            command = [sys.executable, "-m", "tests.training.stand_in", kind, name]
            self.workers.append(subprocess.Popen(command, cwd=ROOT, env=environment(**self.settings), stderr=log))
        return self.workers[-1]

    def hold(self, phase: str, where: str) -> None:
        (self.points / f"{phase}-{where}").touch()

    def held(self, phase: str, where: str) -> int:
        """Waits until the phase is at that point. Returns its process id."""
        pattern = f"{phase}-{where}.*"
        until(lambda: any(self.points.glob(pattern)))
        answer = next(self.points.glob(pattern))
        answer.unlink()
        return int(answer.suffix[1:])

    def release(self, phase: str, where: str) -> None:
        (self.points / f"{phase}-{where}").unlink()

    def trains(self, id: str) -> None:
        """Starts a worker and waits until it holds the job in its training, at step 5 of 10 in epoch 2 of 4."""
        self.hold("training", "middle")
        self.worker()
        self.held("training", "middle")
        step = {"epoch": 2, "epochs": 4, "step": 5, "steps": 10, "loss": 1.0, "images_per_second": 81.5}
        with self.jobs.run(id).progress.open("a") as file:
            file.write(json.dumps({"event": "step", "time": time.time(), **step}) + "\n")

    def ends(self, id: str, state: JobState = "succeeded", seconds: float = 60) -> Job:
        """Waits until the job is over, and checks its state."""
        over = ("succeeded", "rejected", "failed", "cancelled")
        until(lambda: ask(self.jobs.get(id)).state in over, seconds)
        job = ask(self.jobs.get(id))
        assert job.state == state, (job.reason, self.log())
        return job

    def log(self) -> str:
        return (self.shared.state / "workers.log").read_text()

    def spoil(self, attempt: str, **columns: str | None) -> None:
        spoil(self.shared, attempt, **columns)

    def close(self) -> None:
        for process in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, 9)
            process.wait()
        ask(self.jobs.close())
