"""What hangs: a version that never loads, a lock that is kept, a named pipe, a worker that is stopped.

Each is told in `/health`, harms nobody longer than its limit, and does not keep the service from ending.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.app.network import LABELS, SIZE, network, publish, repository_at
from tests.chaos.harness import Outcome, Target, descendants
from tests.process import until

TOLD_S = 60.0  # until /health tells of it
END_S = 60.0  # until SIGTERM has ended it


def run(folder: Path) -> Iterator[Outcome]:
    for case in (load, lock, pipe, worker):
        yield case(folder / case.__name__)


def load(folder: Path) -> Outcome:
    """Makes a version active whose graph never ends."""
    return _tried(folder, "a version whose load never ends", _activates_endless)


def lock(folder: Path) -> Outcome:
    """Keeps the repository's lock in another process."""
    return _tried(folder, "the repository's lock, kept by another process", _keeps_lock)


def pipe(folder: Path) -> Outcome:
    """Puts a named pipe in the place of a version's file."""
    return _tried(folder, "a named pipe in the place of a version's file", _puts_pipe)


def worker(folder: Path) -> Outcome:
    """Stops the worker's process."""
    return _tried(folder, "a worker that is stopped", _stops_worker, worker="true")


Hang = Callable[
    [Target, httpx.Client], contextlib.AbstractContextManager[Callable[[dict[str, Any]], bool]]
]  # Any: JSON


def _tried(folder: Path, what: str, hang: Hang, **settings: str) -> Outcome:
    folder.mkdir()
    repository = repository_at(folder / "models")
    publish(repository)
    publish(repository, 1, activate=False)
    service, outcome = Target(folder, **settings).start(), Outcome(what, 1)
    begun = time.monotonic()
    try:
        with service.client() as client, hang(service, client) as told:
            until(lambda: told(client.get("/health").json()), TOLD_S)
            seconds = time.monotonic() - begun
            if service.good(client).status_code != 200:
                outcome.problems.append("a good client is not answered meanwhile")
            ended, status = service.terminate(END_S)
            if status is None:
                outcome.problems.append(f"SIGTERM did not end it in {END_S:.0f} s")
            outcome.seen = f"told after {seconds:.0f} s, ended {ended:.0f} s after SIGTERM with status {status}"
    except AssertionError:
        outcome.problems.append(f"/health did not tell of it in {TOLD_S:.0f} s")
    finally:
        service.kill()
    outcome.seconds = time.monotonic() - begun
    return outcome


@contextlib.contextmanager
def _activates_endless(service: Target, _: httpx.Client) -> Iterator[Callable[[dict[str, Any]], bool]]:
    repository = repository_at(service.models)
    bright = np.full((4, SIZE, SIZE, 3), 255, np.uint8)
    golden = {"images": bright, "probabilities": np.zeros((4, len(LABELS)), np.float32)}
    repository.activate(publish(repository, model=network(endless=True), golden=golden, activate=False))
    yield lambda health: bool(health["load_error"] or health["rollback"])


@contextlib.contextmanager
def _keeps_lock(service: Target, client: httpx.Client) -> Iterator[Callable[[dict[str, Any]], bool]]:
    with (service.models / "resnext50" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        reply = client.post("/models/2/activate")
        assert reply.status_code == 503, f"an activation was answered with {reply.status_code}"
        yield lambda _: True


@contextlib.contextmanager
def _puts_pipe(service: Target, client: httpx.Client) -> Iterator[Callable[[dict[str, Any]], bool]]:
    graph = service.models / "resnext50" / "2" / "model.onnx"
    graph.unlink()
    os.mkfifo(graph)
    client.post("/models/2/activate")
    repository_at(service.models).activate(2)
    yield lambda health: bool(health["load_error"] or health["rollback"])


@contextlib.contextmanager
def _stops_worker(service: Target, client: httpx.Client) -> Iterator[Callable[[dict[str, Any]], bool]]:
    until(lambda: bool(client.get("/health").json()["trainer"]["workers"]), 60)
    for pid in descendants(service.process.pid):
        if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGSTOP)
    yield lambda health: any(one["silent_seconds"] for one in health["trainer"]["workers"])
