"""The workers, and whether each is alive: `STATE/workers/<name>.lock` is held while the process lives.

The lock is the kernel's, so it ends with the process, however that ends. `<name>.json` says what the worker does. Its
time is renewed every few seconds: a process that is stopped, or a machine that stands still, keeps the lock and falls
silent.
"""

import contextlib
import fcntl
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from training.errors import TrainingError, words_of
from training.system.durable import replace_text
from training.system.locks import try_lock

SIGN_S = 3.0  # between two signs of life
SILENT_S = 15.0  # without one: more than clocks of machines that share a folder differ, and a disk takes

logger = logging.getLogger(__name__)


class PresenceError(TrainingError):
    """A worker's name that cannot be taken."""


class WorkerInfo(BaseModel):
    """One worker, alive or not. `job` is the id of the job that it runs, or was running when it ended.

    `silent_seconds` is how long a live one has shown no sign of life, if that is more than a few seconds.
    """

    name: str
    pid: int
    host: str
    alive: bool = True
    job: str | None = None
    silent_seconds: float | None = None


class Presence:
    """A worker's own sign of life: its name, held, and what it does."""

    def __init__(self, folder: Path, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise PresenceError(f"a worker's name should be letters, digits, _ . and -; it is {name!r}")
        self.folder, self.name = folder, name

    @contextlib.contextmanager
    def held(self, stop: threading.Event, seconds: float = 15) -> Iterator[None]:
        """Holds the name. Waits up to `seconds` for a predecessor that is ending, or until `stop` is set.

        Raises PresenceError when the predecessor does not end.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + seconds
        with _lock_of(self.folder, self.name).open("a") as file:
            while not try_lock(file.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > end:
                    other = _read(self.folder, self.name)
                    whose = f"process {other.pid} on {other.host}" if other else "another process"
                    raise PresenceError(f"worker {self.name} runs already, as {whose}: stop it, or use another --name")
                if stop.wait(0.05):
                    break
            else:
                self.says(None)
            ended = threading.Event()
            threading.Thread(target=self._renew, args=(ended,), name="sign of life", daemon=True).start()
            try:
                yield
            finally:
                ended.set()

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(SIGN_S):
            with contextlib.suppress(OSError):
                os.utime(self.folder / f"{self.name}.json")

    def says(self, job: str | None) -> None:
        """Records which job runs, in one rename: a reader finds the old record or the new one, whole.

        On a full disk the old record stays: that is no reason to end a job.
        """
        path = self.folder / f"{self.name}.json"
        info = WorkerInfo(name=self.name, pid=os.getpid(), host=socket.gethostname(), job=job)
        try:
            replace_text(path, info.model_dump_json(exclude={"alive", "silent_seconds"}))
        except OSError as error:
            logger.warning("what worker %s does cannot be recorded: %s", self.name, words_of(error))


def workers(folder: Path) -> list[WorkerInfo]:
    """Returns every worker that was ever started here and not forgotten, by name."""
    if not folder.is_dir():
        return []
    return [info for path in sorted(folder.glob("[!.]*.json")) if (info := _read(folder, path.stem))]


def forget(folder: Path, name: str) -> None:
    """Removes the files of a worker that will not come back."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    _lock_of(folder, name).unlink(missing_ok=True)


def _read(folder: Path, name: str) -> WorkerInfo | None:
    try:
        path = folder / f"{name}.json"
        info, silent = WorkerInfo.model_validate_json(path.read_bytes()), time.time() - path.stat().st_mtime
        with _lock_of(folder, name).open() as file:
            info.alive = not try_lock(file.fileno(), fcntl.LOCK_SH)  # released as the file closes
        if info.alive and silent > SILENT_S:
            info.silent_seconds = round(silent, 1)
    except (FileNotFoundError, ValidationError):  # it is being forgotten right now, or it is damaged
        return None
    return info


def _lock_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
