"""What every part of the chaos run uses: a service whose memory is watched, a good client beside it, and an outcome."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.app.network import encoded, publish, random_images, repository_at
from tests.process import ROOT, answers, environment, free_port, until

GOOD = encoded(random_images(1)[0])
MEGABYTE = 1024**2
SETTLE_S = 2.0  # memory that was given back is handed on to the system about once a second
LIMIT_S = 60.0  # no request of a good client may take longer, whatever others do


@dataclass
class Outcome:
    """One row of the table: what was tried how often, what went wrong, and memory in MB before, at its peak, after."""

    what: str
    tried: int
    problems: list[str] = field(default_factory=list)
    memory: tuple[int, int, int] | None = None
    seconds: float = 0.0
    seen: str = ""

    def row(self) -> str:
        """Returns the outcome as a line of a Markdown table."""
        memory = " / ".join(map(str, self.memory)) if self.memory else ""
        return f"| {self.what} | {self.tried:,} | {len(self.problems)} | {memory} | {self.seconds:.0f} | {self.seen} |"


class Target:
    """A service in a process of its own, on a small real network."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.models = folder / "models"
        self.log = folder / "service.log"
        self.settings = {
            "models": str(self.models),
            "datasets": str(folder / "datasets"),
            "state": str(folder / "state"),
            "port": str(self.port),
            "poll_interval": "0.1",
            **settings,
        }

    def start(self) -> "Target":
        """Starts the process and waits until it serves."""
        if not self.models.exists():
            publish(repository_at(self.models))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=ROOT, env=environment(**self.settings), stdout=log, stderr=log
            )
        until(lambda: answers(f"{self.url}/health/ready", 200), 90)
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, seconds: float = LIMIT_S) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=seconds)

    def good(self, client: httpx.Client) -> httpx.Response:
        """Sends a good image."""
        return client.post("/predict", content=GOOD, headers={"Content-Type": "image/png"})

    def resident(self, peak: bool = False) -> int:
        """Returns MB of memory, now or at most since the last `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        name = "VmHWM" if peak else "VmRSS"
        return int(status.partition(f"{name}:")[2].split()[0]) // 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def terminate(self, seconds: float) -> tuple[float, int | None]:
        """Sends SIGTERM. Returns the seconds that the end took and the exit status; None where it had to be killed."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        return time.monotonic() - begun, status

    def kill(self) -> None:
        """Ends the process and all that it has started."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def target(folder: Path, **settings: str) -> Iterator[Target]:
    """Starts a service in a new folder and kills it in the end."""
    folder.mkdir(parents=True)
    started = Target(folder, **settings).start()
    try:
        yield started
    finally:
        started.kill()


@contextlib.contextmanager
def watched(service: Target, outcome: Outcome) -> Iterator[Outcome]:
    """Fills in an outcome's memory and seconds. A service that has ended meanwhile is a problem."""
    before, begun = service.resident(), time.monotonic()
    service.forget_peak()
    yield outcome
    outcome.seconds = time.monotonic() - begun
    time.sleep(SETTLE_S)
    if service.process.poll() is not None:
        outcome.problems.append(f"the service has ended with {service.process.returncode}")
        return
    outcome.memory = before, service.resident(peak=True), service.resident()


class GoodClient(threading.Thread):
    """A client that goes on asking for one picture, and notes each answer that is not what it should get."""

    def __init__(self, service: Target, allowed: tuple[int, ...] = (200,), pause_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.service, self.allowed, self.pause_s = service, allowed, pause_s
        self.seconds: list[float] = []
        self.problems: list[str] = []
        self._end = threading.Event()

    def run(self) -> None:
        with self.service.client() as client:
            expected = self.service.good(client).json()["results"]
            while not self._end.wait(self.pause_s):
                begun = time.monotonic()
                try:
                    reply = self.service.good(client)
                except httpx.TransportError as error:
                    self.problems.append(f"a good client got {type(error).__name__} after {len(self.seconds)} answers")
                    continue
                self.seconds.append(time.monotonic() - begun)
                if reply.status_code not in self.allowed:
                    self.problems.append(f"a good client got {reply.status_code}: {reply.text[:200]}")
                elif reply.status_code == 200 and reply.json()["results"] != expected:
                    self.problems.append(f"a good client got another answer: {reply.text[:200]}")

    def __enter__(self) -> "GoodClient":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    @property
    def longest(self) -> float:
        return max(self.seconds, default=0)


def descendants(pid: int) -> list[int]:
    """Returns the ids of the processes that a process has started, and of theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [*descendants(child), child]
    return found
