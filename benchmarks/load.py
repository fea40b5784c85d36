"""The client: asks a server over keep-alive connections and looks at every answer. Runs in a process of its own.

Closed loop: each of N clients asks again as soon as it is answered. An answer counts by the share of its time that lies
within the measured time: a server that works on all requests at once answers in bursts, and how many of them fall into
a few seconds is luck. Open loop: requests come at random (Poisson), and latency counts from when a request was due, so
a server that stalls cannot hide it.
"""

import asyncio
import itertools
import math
import pickle
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, cast

import uvloop

TIMEOUT_S = 30.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LABEL = b"class "  # benchmarks.models names its classes so: the first one in an answer is the top one
LABEL_BYTES = len(b"class 0000")


@dataclass(frozen=True)
class Plan:
    """A load: what to ask and how often. `clients` makes it a closed loop, `rate` (requests a second) an open one."""

    port: int
    requests: list[bytes]  # complete HTTP requests
    labels: list[bytes]  # the right top class of each
    seconds: float
    warm_up: float
    clients: int = 0
    rate: float = 0.0


@dataclass
class Result:
    """The result of a plan in its measured time. `answers`: when asked (or due; monotonic seconds), seconds it took.
    `work`: right answers, in a closed loop each by its share."""

    seconds: float
    work: float = 0.0
    answers: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    client_cpu: float = 0.0  # seconds

    @property
    def rate(self) -> float:
        """Returns right answers a second."""
        return self.work / self.seconds

    def latency(self, percent: float) -> float:
        """Returns a percentile in milliseconds."""
        return percentile([seconds for _, seconds in self.answers], percent)


def percentile(seconds: list[float], percent: float) -> float:
    """Returns a percentile in milliseconds, NaN of nothing."""
    ordered = sorted(seconds)
    return 1e3 * ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan


def drive(plan: Plan, begun: Callable[[], None] = lambda: None, ended: Callable[[], None] = lambda: None) -> Result:
    """Runs a plan in a new process; calls `begun` and `ended` when the measured time does."""
    command = [sys.executable, "-m", "benchmarks.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        pickle.dump(plan, process.stdin)
        process.stdin.close()
        for report in (begun, ended):
            _hear(process.stdout)
            report()
        result: Result = _hear(process.stdout)
    return result


def _tell(message: object) -> None:
    """Writes one message to stdout: its length in 8 bytes, then a pickle. `pickle.load` on the pipe failed once in some
    hundred results of megabytes."""
    data = pickle.dumps(message)
    sys.stdout.buffer.write(len(data).to_bytes(8, "little") + data)
    sys.stdout.buffer.flush()


def _hear(stream: IO[bytes]) -> Any:  # Any: the value given to `_tell`
    return pickle.loads(stream.read(int.from_bytes(stream.read(8), "little")))  # noqa: S301  of a process that this one started


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    transport: asyncio.Transport
    answer: asyncio.Future[bytes] | None = None

    def __init__(self) -> None:
        self.received = bytearray()
        self.whole = 0  # bytes of the answer; 0 until its head has come
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed"))

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.whole:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.received, 0, end)
            # without a length it comes in chunks; the last one is empty
            self.whole = end + 4 + int(length[1]) if length else sys.maxsize
        whole = len(self.received) >= self.whole or self.received.endswith(b"\r\n0\r\n\r\n")
        if whole and self.answer and not self.answer.done():
            self.answer.set_result(bytes(self.received))
            self.received.clear()
            self.whole = 0

    async def ask(self, request: bytes) -> bytes:
        """Returns the whole answer. Raises OSError, TimeoutError."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(TIMEOUT_S):
            return await self.answer


class Load:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.begin = time.monotonic() + plan.warm_up
        self.end = self.begin + plan.seconds
        self.result = Result(plan.seconds)
        self.idle: list[Connection] = []
        self.unanswered = 0  # of what was asked before the end

    async def run(self, tell: Callable[[str], None]) -> Result:
        """Reports "begun" and "ended", asks until the end, waits for the requests under way."""
        watch = asyncio.create_task(self._watch(tell))
        if self.plan.clients:
            await asyncio.gather(*(self._client(number) for number in range(self.plan.clients)))
        else:
            await self._arrivals()
        await watch
        for connection in self.idle:
            connection.transport.close()
        return self.result

    async def _watch(self, tell: Callable[[str], None]) -> None:
        await asyncio.sleep(self.begin - time.monotonic())
        tell("begun")
        cpu = _cpu()
        await asyncio.sleep(self.end - time.monotonic())
        tell("ended")
        self.result.client_cpu = _cpu() - cpu

    async def _client(self, number: int) -> None:
        for i in itertools.count(5 * number):  # neighbors ask for different images
            now = time.monotonic()
            if now >= self.end and not self.unanswered:
                return
            early = now < self.end  # otherwise it only keeps up the load for the requests under way
            self.unanswered += early
            await self._ask(i, now)
            self.unanswered -= early

    async def _arrivals(self) -> None:
        due, random_ = time.monotonic(), random.Random(0)  # noqa: S311  arrivals, no secret
        async with asyncio.TaskGroup() as tasks:
            for i in itertools.count():
                due += random_.expovariate(self.plan.rate)
                if due >= self.end:
                    return
                await asyncio.sleep(due - time.monotonic())
                tasks.create_task(self._ask(i, due))

    async def _ask(self, i: int, due: float) -> None:
        i %= len(self.plan.requests)
        error = await self._error(self.plan.requests[i], self.plan.labels[i])
        now = time.monotonic()
        if error:
            if now >= self.begin:
                self.result.errors[error] += 1
        elif self.plan.clients:
            self.result.work += max(0.0, min(now, self.end) - max(due, self.begin)) / (now - due)
            if self.begin <= now < self.end:
                self.result.answers.append((due, now - due))
        elif self.begin <= due < self.end:
            self.result.work += 1
            self.result.answers.append((due, now - due))

    async def _error(self, request: bytes, label: bytes) -> str | None:
        """Returns what is wrong with the answer, or None."""
        try:
            connection = self.idle.pop() if self.idle else await self._connect()
        except OSError as error:
            return type(error).__name__
        try:
            answer = await connection.ask(request)
        except (OSError, TimeoutError) as error:
            connection.transport.close()
            return type(error).__name__
        head = answer[: answer.find(b"\r\n\r\n")].lower()
        if connection.open and b"\r\nconnection: close" not in head:
            self.idle.append(connection)
        else:
            connection.transport.close()
        if (status := answer[9:12]) != b"200":
            return f"HTTP {status.decode(errors='replace')}"
        first = answer.find(LABEL)
        right = answer[first : first + LABEL_BYTES] == label and answer.count(LABEL) == 5
        return None if right else "wrong answer"

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self.plan.port))[1]


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Reads a pickled plan from stdin and writes messages to stdout; both ends are ours."""
    # under its own name, so that the other process can unpickle what it makes
    from benchmarks.load import Load

    plan: Plan = pickle.load(sys.stdin.buffer)  # noqa: S301  of the process that started this one
    _tell(uvloop.run(_run(Load(plan), _tell)))


async def _run(load: Load, tell: Callable[[str], None]) -> Result:
    return await load.run(tell)


if __name__ == "__main__":
    main()
