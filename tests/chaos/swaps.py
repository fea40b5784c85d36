"""A hundred swaps under load: each answer is that of the version which it names."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.app.network import publish, repository_at
from tests.chaos.harness import Outcome, Target, watched

SWAPS = 100
CLIENTS = 3


def run(folder: Path) -> Iterator[Outcome]:
    place = folder / "swaps"
    place.mkdir()
    repository = repository_at(place / "models")
    for seed in (0, 1):
        publish(repository, seed)
    service = Target(place).start()
    try:
        yield swapped(service)
    finally:
        service.kill()


def swapped(service: Target) -> Outcome:
    """Activates two versions in turns while clients ask; compares each answer with that of its version at rest."""
    outcome = Outcome(f"answers during {SWAPS} swaps", 0)
    right: dict[int, Any] = {}  # Any: JSON
    with service.client() as client:
        for version in (1, 2):
            client.post(f"/models/{version}/activate").raise_for_status()
            right[version] = service.good(client).json()["results"]
    end = threading.Event()
    clients = [Client(service, right, end) for _ in range(CLIENTS)]
    with watched(service, outcome), service.client() as client:
        for one in clients:
            one.start()
        for number in range(SWAPS):
            reply = client.post(f"/models/{1 + number % 2}/activate")
            if reply.status_code != 200:
                outcome.problems.append(f"activation: {reply.status_code}, {reply.text[:200]}")
        end.set()
        for one in clients:
            one.join()
    outcome.tried = sum(one.answers for one in clients)
    outcome.problems += [problem for one in clients for problem in one.problems]
    return outcome


class Client(threading.Thread):
    """A client that compares each answer with the right one of the version that it names."""

    def __init__(self, service: Target, right: dict[int, Any], end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.service, self.right, self.end = service, right, end
        self.answers = 0
        self.problems: list[str] = []

    def run(self) -> None:
        with self.service.client() as client:
            while not self.end.is_set():
                try:
                    reply = self.service.good(client)
                except httpx.TransportError as error:
                    self.problems.append(type(error).__name__)
                    continue
                self.answers += 1
                if reply.status_code != 200:
                    self.problems.append(f"{reply.status_code}: {reply.text[:200]}")
                elif reply.json()["results"] != self.right[reply.json()["model"]["version"]]:
                    self.problems.append(f"mixed up: {reply.text[:200]}")
