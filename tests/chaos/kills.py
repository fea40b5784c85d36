"""`kill -9` of everything that runs: a job ends as if nothing had been, and a service with two processes goes on."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.harness import GoodClient, Outcome, Target, descendants, watched
from tests.process import until
from tests.training.engine import Engine
from tests.training.stand_in import STEPS
from training.runs.progress import PHASES

JOBS, KILLS_A_JOB = 3, 4
SERVICE_KILLS = 8


def run(folder: Path) -> Iterator[Outcome]:
    yield jobs(folder / "jobs")
    with two_processes(folder / "processes") as service:
        yield processes(service)


def jobs(folder: Path) -> Outcome:
    """Kills the worker or a phase's process at random moments. Each step of each phase should be done once."""
    outcome, dice = Outcome("kill -9 of a worker or of its phases", JOBS * KILLS_A_JOB), random.Random(3)
    begun = time.monotonic()
    engine = Engine(folder)
    try:
        for _ in range(JOBS):
            id = engine.submit().id
            worker = engine.worker()
            for _ in range(KILLS_A_JOB):
                time.sleep(dice.uniform(0.2, 4))
                victims = [*descendants(worker.pid), worker.pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(victims), signal.SIGKILL)
                if worker.poll() is not None:
                    worker = engine.worker()
            try:
                engine.ends(id)
            except AssertionError as error:
                outcome.problems.append(f"a job did not end well: {error}")
                continue
            done = (engine.jobs.run(id).folder / "steps.txt").read_text().splitlines()
            if done != [f"{phase} {step}" for phase in PHASES for step in range(STEPS)]:
                outcome.problems.append(f"steps were lost or done twice: {done}")
            worker.kill()
            worker.wait()
    finally:
        engine.close()
    outcome.seconds = time.monotonic() - begun
    outcome.seen = f"{JOBS} jobs, each step of each phase done once"
    return outcome


@contextlib.contextmanager
def two_processes(folder: Path) -> Iterator[Target]:
    folder.mkdir()
    service = Target(folder, processes="2").start()
    try:
        yield service
    finally:
        service.kill()


def processes(service: Target) -> Outcome:
    """Kills one of two serving processes again and again. A client loses what that process had in flight, no more."""
    outcome = Outcome("kill -9 of one of two serving processes", SERVICE_KILLS)
    with watched(service, outcome), GoodClient(service) as good:
        for number in range(SERVICE_KILLS):
            until(lambda: len(_serving(service)) >= 2, 60)
            os.kill(_serving(service)[number % 2], signal.SIGKILL)
            time.sleep(0.5)
        until(lambda: len(_serving(service)) >= 2, 60)
    lost = [problem for problem in good.problems if "Error" in problem or "Timeout" in problem]
    outcome.problems += [problem for problem in good.problems if problem not in lost]
    if len(lost) > SERVICE_KILLS:
        outcome.problems.append(f"{len(lost)} requests were lost: {lost[0]}")
    outcome.seen = f"{len(lost)} requests in flight lost of {len(good.seconds):,}"
    return outcome


def _serving(service: Target) -> list[int]:
    """Returns the processes that listen on the service's port."""
    port = f":{service.port:04X}"
    inodes = {
        fields[9]
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[1].endswith(port) and fields[3] == "0A"
    }
    return sorted(pid for pid in descendants(service.process.pid) if inodes & _sockets(pid))


def _sockets(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
    return found
