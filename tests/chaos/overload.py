"""Three times as many requests as the service can answer: it goes on answering at its rate, soon, and recovers."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import Plan, Result, drive
from tests.app.network import LABELS, encoded, network, publish, random_images, repository_at
from tests.chaos.harness import LIMIT_S, Outcome, Target, watched

NAMES = [f"class {i:04d}" for i in range(len(LABELS))]
IMAGES = [encoded(image) for image in random_images(8)]
TIMES = 3  # the capacity
SECONDS, WARM_UP = 15.0, 3.0
GOODPUT = 0.85  # of the capacity; the client takes some of the cores
P99_S = 2.5
RECOVERY_S = 2.0


def run(folder: Path) -> Iterator[Outcome]:
    place = folder / "overload"
    place.mkdir()
    publish(repository_at(place / "models"), model=network(slow=True), labels=NAMES)
    service = Target(place).start()
    try:
        yield overloaded(service)
    finally:
        service.kill()


def overloaded(service: Target) -> Outcome:
    """Measures the capacity with 8 clients, then lets requests come at three times that rate."""
    outcome = Outcome("requests at three times the capacity", 0)
    requests = [_request(data) for data in IMAGES]
    with service.client() as client:
        labels = [_top(client.post("/predict", content=data).json()) for data in IMAGES]

    def load(**how: float) -> Result:
        return drive(Plan(service.port, requests, labels, SECONDS, WARM_UP, **how))  # type: ignore[arg-type]  # clients or rate

    with watched(service, outcome):
        capacity = load(clients=8).rate
        over = load(rate=TIMES * capacity)
        outcome.tried = len(over.answers) + sum(over.errors.values())
        after = load(clients=1)
    share, p99 = over.rate / capacity, over.latency(99) / 1000
    refused = over.errors.pop("HTTP 503", 0)
    outcome.problems += [f"{count} x {what}" for what, count in over.errors.items()]
    if share < GOODPUT:
        outcome.problems.append(f"right answers came at {share:.2f} of the capacity")
    if not p99 <= P99_S:
        outcome.problems.append(f"p99 of the answers was {p99:.1f} s")
    if not after.latency(100) / 1000 <= max(RECOVERY_S, LIMIT_S / 10):
        outcome.problems.append(f"afterwards an answer took {after.latency(100) / 1000:.1f} s")
    outcome.seen = f"{share:.2f} of {capacity:.0f} a second answered, p99 {p99:.2f} s; {refused:,} refused with 503"
    return outcome


def _request(data: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: chaos\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _top(answer: dict[str, list[dict[str, list[dict[str, str]]]]]) -> bytes:
    return answer["results"][0]["predictions"][0]["label"].encode()
