"""Slow, vanishing and flooding clients: each is sent away in bounded time, and a good one is answered meanwhile."""

import contextlib
import random
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.chaos.harness import GOOD, GoodClient, Outcome, Target, target, watched

SLOW = 60  # connections of each kind
PATIENCE_S = 90.0  # until the last slow one has to be gone
VANISHING = 400
DESCRIPTORS = 256
HEADER_BYTES = 4 * 1024**2


def run(folder: Path) -> Iterator[Outcome]:
    with target(folder / "clients") as service:
        yield slow(service)
        yield vanishing(service)
        yield headers(service)
        yield bodies(service)
        yield held(service)
    with target(folder / "descriptors") as service:
        yield crowd(service)


def slow(service: Target) -> Outcome:
    """Opens connections that send nothing, a header or a body at a byte a second."""
    kinds = {
        "nothing": (b"", b""),
        "a header": (b"GET /health HTTP/1.1\r\nHost: chaos\r\nX-Slow: ", b"a"),
        "a body": (b"POST /predict HTTP/1.1\r\nHost: chaos\r\nContent-Length: 1000000\r\n\r\n", b"a"),
        "chunks": (b"POST /predict HTTP/1.1\r\nHost: chaos\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "a dataset": (b"PUT /datasets/slow HTTP/1.1\r\nHost: chaos\r\nContent-Length: 1000000\r\n\r\n", b"a"),
    }  # fmt: skip
    outcome = Outcome("connections at a byte a second, or less", SLOW * len(kinds))
    begun, last = time.monotonic(), 0.0
    with watched(service, outcome), GoodClient(service, pause_s=0.2) as good:
        open_: dict[socket.socket, tuple[str, bytes]] = {}
        for name, (first, more) in kinds.items():
            for _ in range(SLOW):
                connection = socket.create_connection(("127.0.0.1", service.port))
                connection.sendall(first)
                open_[connection] = name, more
        while open_ and time.monotonic() - begun < PATIENCE_S:
            time.sleep(1)
            for connection, (_, more) in list(open_.items()):
                if not _goes_on(connection, more):
                    del open_[connection]
                    connection.close()
                    last = time.monotonic() - begun
        for connection, (name, _) in open_.items():
            outcome.problems.append(f"one that sends {name} was open after {PATIENCE_S:.0f} s")
            connection.close()
    outcome.problems += good.problems
    outcome.seen = f"the last was closed after {last:.0f} s; a good client's longest answer {good.longest:.1f} s"
    return outcome


def _goes_on(connection: socket.socket, more: bytes) -> bool:
    """Sends some more. Returns whether the connection is still open."""
    try:
        connection.sendall(more)
        while select.select([connection], [], [], 0)[0]:
            if not connection.recv(65536):
                return False
    except OSError:
        return False
    return True


def vanishing(service: Target) -> Outcome:
    """Opens connections that leave within the request, or before its answer."""
    dice = random.Random(4)
    head = f"POST /predict HTTP/1.1\r\nHost: chaos\r\nContent-Type: image/png\r\nContent-Length: {len(GOOD)}\r\n\r\n"
    whole = head.encode() + GOOD
    outcome = Outcome("clients that leave within a request, or before its answer", VANISHING)
    with watched(service, outcome), GoodClient(service) as good:
        for number in range(VANISHING):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(whole if number % 2 else whole[: dice.randrange(1, len(whole))])
                if number % 4 == 0:  # the hard way: a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with service.client() as client:
        depth = client.get("/health").json()["queue"]["depth"]
    if depth:
        outcome.problems.append(f"{depth} places stay taken")
    outcome.problems += good.problems
    outcome.seen = f"a good client's longest answer {good.longest:.1f} s"
    return outcome


def headers(service: Target) -> Outcome:
    """Sends headers of 4 MB: in one, in many, in the target, in a trailer, in a chunk's extension."""
    filler = b"a" * 8000
    chunked = b"POST /predict HTTP/1.1\r\nHost: chaos\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    kinds = {
        "one header": (b"GET /health HTTP/1.1\r\nHost: chaos\r\nX-Long: ", filler),
        "many headers": (b"GET /health HTTP/1.1\r\nHost: chaos\r\n", b"X-Many: a\r\n" * 700),
        "a target": (b"GET /health?", filler),
        "a chunk's extension": (chunked + b"1;x=", filler),
        "a trailer": (chunked + b"0\r\nX-Long: ", filler),
    }
    outcome = Outcome("headers of 4 MB", len(kinds))
    with watched(service, outcome), GoodClient(service) as good:
        for name, (first, more) in kinds.items():
            sent = _sent_before_the_end(service.port, first, more)
            if sent >= HEADER_BYTES:
                outcome.problems.append(f"{name} of {sent} bytes was read")
    outcome.problems += good.problems
    outcome.seen = f"a good client's longest answer {good.longest:.1f} s"
    return outcome


def _sent_before_the_end(port: int, first: bytes, more: bytes) -> int:
    """Sends until the other side closes, or `HEADER_BYTES` are sent and 5 seconds have passed. Returns the bytes."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(first)
            while sent < HEADER_BYTES:
                connection.sendall(more)
                sent += len(more)
                if select.select([connection], [], [], 0)[0]:  # an answer, or the end
                    return 0
            connection.recv(100)
            return 0
        except TimeoutError:
            return sent
        except OSError:
            return 0


def bodies(service: Target) -> Outcome:
    """Sends JSON that costs much more than its bytes."""
    fields = b"{" + b",".join(b'"k%07d":1' % i for i in range(300_000)) + b"}"
    kinds = {
        "300,000 unknown fields": ("/train", fields),
        "30 MB of JSON": ("/train", b'{"data": "' + b"a" * 30_000_000 + b'"}'),
        "brackets 100,000 deep": ("/train", b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "a number of 100,000 digits": ("/train", b'{"epochs": ' + b"9" * 100_000 + b"}"),
        "5 million empty lists": ("/v2/models/resnext50/infer", b'{"inputs": [' + b"[]," * 5_000_000 + b"[]]}"),
        "300,000 inputs": ("/v2/models/resnext50/infer", b'{"inputs": [' + b"{}," * 300_000 + b"{}]}"),
    }
    outcome, largest = Outcome("JSON that is made to cost", len(kinds)), 0
    with watched(service, outcome), GoodClient(service) as good, service.client() as client:
        for name, (path, body) in kinds.items():
            reply = client.post(path, content=body, headers={"Content-Type": "application/json"})
            largest = max(largest, len(reply.content))
            if reply.status_code not in (400, 403, 413, 422, 503):
                outcome.problems.append(f"{name}: {reply.status_code}, {reply.text[:200]}")
    outcome.problems += good.problems
    if good.longest > 2:
        outcome.problems.append(f"a good client waited {good.longest:.1f} s")
    if largest > 100_000:
        outcome.problems.append(f"an answer had {largest} bytes")
    outcome.seen = f"a good client's longest answer {good.longest:.1f} s"
    return outcome


def held(service: Target) -> Outcome:
    """Holds uploads of 30 MB just before their end."""
    count, size = 60, 30 * 1024**2
    head = (
        f"POST /predict HTTP/1.1\r\nHost: chaos\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n\r\n".encode()
    )
    outcome, refused = Outcome("uploads of 30 MB that stop before their end", count), 0
    with (
        watched(service, outcome),
        GoodClient(service, allowed=(200, 503), pause_s=0.2) as good,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=20))
            try:
                connection.sendall(head + bytes(size - 1024**2))
            except OSError:
                refused += 1
                continue
            refused += bool(select.select([connection], [], [], 0)[0])
        most = service.resident(peak=True)
    if most > 2000:
        outcome.problems.append(f"they took {most} MB")
    outcome.problems += good.problems
    outcome.seen = f"{refused} refused; a good client's longest answer {good.longest:.1f} s"
    return outcome


def crowd(service: Target) -> Outcome:
    """Opens more connections than the process has descriptors: its health has to stay visible."""
    service.terminate(30)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, limits[1]))  # it is inherited
    try:
        service.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    outcome, seen = Outcome(f"connections to a process with {DESCRIPTORS} descriptors", 2 * DESCRIPTORS), 0
    with watched(service, outcome), contextlib.ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=2))
                seen += 1
        with service.client(10) as client:
            for path in ("/health/live", "/health/ready"):
                try:
                    status = str(client.get(path).status_code)
                except httpx.TransportError as error:
                    status = type(error).__name__
                if status != "200":
                    outcome.problems.append(f"{path} was answered with {status}")
    with service.client(10) as client:
        if service.good(client).status_code != 200:
            outcome.problems.append("a good client is not answered afterwards")
    outcome.seen = f"{seen} were opened"
    return outcome
