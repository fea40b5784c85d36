import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from benchmarks.load import Load, Plan, Result, percentile

RIGHT = b'{"predictions": [' + b", ".join(b'{"label": "class %04d"}' % i for i in (3, 1, 2, 4, 5)) + b"]}"
Reply = Callable[[asyncio.StreamWriter], None]


def with_length(body: bytes, status: bytes = b"200 OK") -> Reply:
    return lambda writer: writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def in_chunks(writer: asyncio.StreamWriter) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    writer.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(RIGHT), RIGHT))
    writer.close()


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def asked(reply: Reply, label: bytes = b"class 0003", *, clients: int = 0, rate: float = 0) -> Result:
    """Drives a server that replies like this for a tenth of a second."""
    served = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        while not writer.is_closing() and await reader.read(1000):
            reply(writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        plan = Plan(port, [b"POST / HTTP/1.1\r\n\r\n"], [label], 0.1, 0.0, clients=clients, rate=rate)
        result = await Load(plan).run(lambda _: None)
    await asyncio.gather(*filter(None, served), return_exceptions=True)  # a reset is what hang_up is about
    return result


@pytest.mark.parametrize("reply", [with_length(RIGHT), in_chunks])
def test_right_answers_are_counted(reply: Reply) -> None:
    result = asyncio.run(asked(reply, clients=2))
    assert result.answers
    assert not result.errors
    assert abs(result.rate * 0.1 - len(result.answers)) <= 2  # what was under way at the begin and at the end


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (with_length(RIGHT.replace(b"0003", b"0007")), "wrong answer"),
        (with_length(RIGHT.replace(b"class 0005", b"")), "wrong answer"),
        (with_length(b"{}", b"503 Service Unavailable"), "HTTP 503"),
        (hang_up, "ConnectionResetError"),
    ],
)
def test_anything_else_is_an_error_by_its_kind(reply: Reply, error: str) -> None:
    result = asyncio.run(asked(reply, clients=1))
    assert not result.answers
    assert set(result.errors) == {error}


def test_an_answer_counts_by_its_share_of_the_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that works on all requests at once answers in bursts, which fall into that time or do not."""

    async def right(*_: bytes) -> None:
        return None

    load = Load(Plan(0, [b""], [b""], 2.0, 0.0, clients=1))
    load.begin, load.end = 10.0, 12.0
    monkeypatch.setattr(load, "_error", right)
    work = []
    for due, now in ((9.0, 13.0), (10.5, 11.0), (9.5, 10.5), (8.0, 9.0), (12.0, 13.0)):
        before = load.result.work
        monkeypatch.setattr("benchmarks.load.time", SimpleNamespace(monotonic=lambda now=now: now))
        asyncio.run(load._ask(0, due))
        work.append(load.result.work - before)
    assert work == [0.5, 1.0, 0.5, 0.0, 0.0]
    assert load.result.answers == [(10.5, 0.5), (9.5, 1.0)]


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    held: list[asyncio.StreamWriter] = []

    def only_from_the_third_on(writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        if len(held) == 3:
            for waiting in held:
                with_length(RIGHT)(waiting)
        elif len(held) > 3:
            with_length(RIGHT)(writer)

    result = asyncio.run(asked(only_from_the_third_on, rate=1000))
    (first, waited), _, (third, _), *_ = sorted(result.answers)
    assert waited >= third - first
    assert not result.errors


def test_percentiles() -> None:
    seconds = [n / 1000 for n in range(100, 0, -1)]
    assert [percentile(seconds, p) for p in (50, 99, 100)] == pytest.approx([50, 99, 100])
    assert percentile([0.002], 99) == 2
    assert math.isnan(percentile([], 50))
