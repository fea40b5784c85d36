"""A disk that fills up: what needs room says so, prediction goes on, and all of it works again once there is room."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.chaos.archives import SANE, zipped
from tests.chaos.harness import GoodClient, Outcome, Target, watched
from tests.process import until

MEGABYTES = 64


def run(folder: Path) -> Iterator[Outcome]:
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield Outcome("a disk that is full", 0, seen="not tried: to mount a small disk takes root")
        return
    try:
        yield full(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def full(disk: Path) -> Outcome:
    """Fills the disk of models, datasets and jobs; uploads, submits, activates and predicts; makes room and repeats."""
    service = Target(disk).start()
    outcome = Outcome("requests while the disk is full, and once there is room", 0)
    archive = zipped(SANE)
    try:
        with watched(service, outcome), GoodClient(service) as good, service.client() as client:
            client.put("/datasets/before", content=archive).raise_for_status()
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(65536))
            calls: dict[str, Callable[[], httpx.Response]] = {
                "an upload": lambda: client.put("/datasets/during", content=archive),
                "a job": lambda: client.post("/train", json={"data": "before", "method": "scratch"}),
                "an activation": lambda: client.post("/models/1/activate"),
                "the list of datasets": lambda: client.get("/datasets"),
                "the list of jobs": lambda: client.get("/train"),
            }
            for name, call in calls.items():
                reply = call()
                outcome.tried += 1
                if reply.status_code == 500:
                    outcome.problems.append(f"{name} while the disk is full: {reply.status_code}, {reply.text[:200]}")
            (disk / "filler").unlink()
            for name, call in calls.items():
                begun = time.monotonic()
                _succeeds(call)
                outcome.tried += 1
                if time.monotonic() - begun > 10:
                    outcome.problems.append(f"{name} took {time.monotonic() - begun:.0f} s once there was room")
            if client.get("/datasets/during").status_code != 200:
                outcome.problems.append("the upload once there was room is not there")
        outcome.problems += good.problems
        outcome.tried += len(good.seconds)
    finally:
        service.kill()
    return outcome


def _succeeds(call: Callable[[], httpx.Response]) -> None:
    until(lambda: call().is_success, 30)
