"""Which workers there are, and which live: `STATE/workers/<name>.lock`, held while the process lives, and `.json`.

The lock is the kernel's, so that it ends with the process however that one ends; the other file says what it does.
"""

import contextlib
import fcntl
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from training.errors import TrainingError
from training.system.durable import replace_text
from training.system.locks import try_lock


class PresenceError(TrainingError):
    """A worker's name that can not be taken."""


class WorkerInfo(BaseModel):
    """One worker, alive or not. `job` is the id of the job that it runs, or ran when it ended."""

    name: str
    pid: int
    host: str
    alive: bool = True
    job: str | None = None


class Presence:
    """A worker's own sign of life."""

    def __init__(self, folder: Path, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise PresenceError(f"a worker's name should be letters, digits, _ . and -, it is {name!r}")
        self.folder, self.name = folder, name

    @contextlib.contextmanager
    def held(self, stop: threading.Event, seconds: float = 15) -> Iterator[None]:
        """Takes the name; waits for a predecessor that is ending, until `stop` is set.

        Raises PresenceError when it does not end.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + seconds
        with _lock_of(self.folder, self.name).open("a") as file:
            while not try_lock(file.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > end:
                    other = _read(self.folder, self.name)
                    whose = f"process {other.pid} on {other.host}" if other else "another process"
                    raise PresenceError(f"worker {self.name} runs already, as {whose}: end it, or take another --name")
                if stop.wait(0.05):
                    break
            else:
                self.says(None)
            yield

    def says(self, job: str | None) -> None:
        """Records which job runs; in one rename, for a reader finds all of it or what was before."""
        path = self.folder / f"{self.name}.json"
        info = WorkerInfo(name=self.name, pid=os.getpid(), host=socket.gethostname(), job=job)
        replace_text(path, info.model_dump_json(exclude={"alive"}))


def workers(folder: Path) -> list[WorkerInfo]:
    """Every worker that was ever started here and not forgotten, by name."""
    if not folder.is_dir():
        return []
    return [info for path in sorted(folder.glob("[!.]*.json")) if (info := _read(folder, path.stem))]


def forget(folder: Path, name: str) -> None:
    """Removes what a worker has left that will not come back."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    _lock_of(folder, name).unlink(missing_ok=True)


def _read(folder: Path, name: str) -> WorkerInfo | None:
    try:
        info = WorkerInfo.model_validate_json((folder / f"{name}.json").read_bytes())
        with _lock_of(folder, name).open() as file:
            info.alive = not try_lock(file.fileno(), fcntl.LOCK_SH)  # let go of as the file closes
    except FileNotFoundError:
        return None  # forgotten in this moment
    return info


def _lock_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
