"""The service in a process of its own, as an operator runs it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits until the condition holds, and fails the test if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def answers(url: str, status: int, headers: Mapping[str, str] | None = None) -> bool:
    try:
        # without certificates, which take 20 ms of a core to load: this is asked in loops
        return httpx.get(url, headers=headers, timeout=5, verify=False).status_code == status
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    """Returns this process's environment, with these settings of the service and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RESNEXT_")}
    return inherited | {f"RESNEXT_{name.upper()}": value for name, value in settings.items()}


def run(before: Callable[[], None] | None = None, /, **settings: str) -> subprocess.Popen[str]:
    """Starts the service. `before` is called in its process first."""
    return subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=environment(**settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


@contextmanager
def service(
    root: Path, before: Callable[[], None] | None = None, /, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Starts the service and yields the process and its port once it is live; kills it in the end."""
    port = free_port()
    places = {"models": str(root), "datasets": f"{root}-datasets", "state": f"{root}-state"}
    process = run(before, **(places | {"port": str(port), "threads": "1", "poll_interval": "0.05"} | settings))
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live", 200))
        yield process, port
    finally:
        process.kill()
        process.communicate()
