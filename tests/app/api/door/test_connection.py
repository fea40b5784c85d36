"""Connections as hostile, slow and vanishing clients use them."""

import asyncio
import json

import pytest

from app.api.door.connection import (
    BODY_S,
    HEAD_BYTES,
    HEAD_S,
    LINGER_BYTES,
    LINGER_S,
    MOST_HEADERS,
    REST_S,
    UNREAD_S,
    WINDOW_BYTES,
    WINDOW_S,
)
from app.api.door.door import FOR_PROBES
from tests.app.api.door.served import Client, Served, chunked, get, post
from tests.app.world import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # the service's loop


async def refused(client: Client, status: int, code: str) -> str:
    """Checks that the next answer is this error and the last, and returns its detail."""
    got, body = await client.answer()
    problem = json.loads(body)
    assert (got, problem["code"]) == (status, code)
    assert await client.rest() == b""
    return str(problem["detail"])


@pytest.mark.parametrize("size", [300, 5_000, HEAD_BYTES - 200])
async def test_headers_up_to_the_limit_are_taken(size: int) -> None:
    async with Served() as served:
        client = await served.connect()
        assert (await client.ask(get("/echo", "X: " + "a" * size)))[0] == 200
        assert (await client.ask(get("/echo?" + "a" * size)))[0] == 200
        assert await client.ask(post("/echo", b"b" * size, None, "X: " + "a" * (size // 2))) == (
            200,
            f"{size} 3".encode(),
        )
        many = [f"X-{i}: y" for i in range(MOST_HEADERS - 1)]
        assert await client.ask(get("/echo", *many)) == (200, f"0 {MOST_HEADERS}".encode())


@pytest.mark.parametrize(
    "head",
    [
        get("/echo", "X: " + "a" * HEAD_BYTES),
        get("/echo", "X" * HEAD_BYTES + ": a"),
        get("/echo?" + "a" * HEAD_BYTES),
        get("/echo", *["X: y"] * MOST_HEADERS),
        get("/echo", *["X: " + "a" * 1000] * 99),
        b"GET / HTTP/1.1\r\nX: " + b"a" * 2**21,
        b"GET /" + b"a" * 2**21,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2**18,
    ],
    ids=["value", "name", "url", "count", "sum", "endless value", "endless url", "endless count"],
)
@pytest.mark.parametrize("before", [b"", get("/echo")], ids=["first", "second"])
async def test_larger_heads_are_refused(head: bytes, before: bytes) -> None:
    async with Served() as served:
        client = await served.connect()
        if before:
            await client.ask(before)
        sending = asyncio.create_task(client.send(head))
        assert "at most 100 headers of 65536 bytes" in await refused(client, 431, "headers_too_large")
        await sending
        assert served.asked == ["/echo"] * bool(before)


async def test_who_goes_on_after_a_refusal_is_cut_off() -> None:
    async with Served() as served:
        endless, silent = await served.connect(), await served.connect()
        for client in (endless, silent):
            await client.send(get("/echo?" + "a" * HEAD_BYTES))
            assert (await client.answer())[0] == 431
        await endless.send(bytes(2 * LINGER_BYTES))
        await until(lambda: len(served.connections) == 1)
        served.later(0)
        served.later(LINGER_S + 1)
        await until(lambda: served.connections == [])


async def test_what_is_no_http_is_told_so_in_the_house_s_own_form() -> None:
    async with Served() as served:
        for data in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", get("/echo", "Content-Length: " + "9" * 5000)):
            for before in (b"", get("/echo")):
                client = await served.connect()
                if before:
                    await client.ask(before)
                await client.send(data)
                await refused(client, 400, "malformed_request")


async def test_what_frames_a_body_is_bounded_and_trailers_are_no_headers() -> None:
    async with Served() as served:
        client = await served.connect()
        small = b"1\r\na\r\n" * 5_000
        assert await client.ask(chunked("/echo", small + b"0\r\nX-Late: y\r\n\r\n")) == (200, b"5000 2")
        large = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
        assert await client.ask(chunked("/echo", large * 20 + b"0\r\n\r\n")) == (200, b"2000000 2")
        for endless in (b"1\r\na\r\n" * 100_000, b"1;" + b"e" * 2**20, b"0\r\n" + b"X: y\r\n" * 2**18):
            client = await served.connect()
            await client.send(chunked("/echo", endless))
            await refused(client, 400, "malformed_request")


async def test_requests_that_are_sent_at_once_are_answered_in_turn_and_wait_unparsed() -> None:
    async with Served() as served:
        client = await served.connect()
        number = 3_000
        await client.send(get("/wait"))
        sending = asyncio.create_task(client.send(get("/echo") * number))
        (connection,) = served.connections
        await until(lambda: connection.flow.read_paused)
        assert len(connection.pipeline) < 200
        served.go.set()
        assert await client.answer() == (200, b"waited")
        for _ in range(number):
            assert (await client.answer())[0] == 200
        await sending
        large = post("/echo", bytes(300_000))
        await client.send(large * 5)
        assert [await client.answer() for _ in range(5)] == [(200, b"300000 2")] * 5


async def test_small_parts_of_many_requests_wait_too() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/wait") + get("/echo"))
        (connection,) = served.connections
        await until(lambda: bool(connection.pipeline))
        for _ in range(20):
            connection.data_received(get("/echo") * 50)  # the socket may be read between two answers
        assert len(connection.pipeline) == 1
        served.go.set()
        for _ in range(1002):
            assert (await client.answer())[0] == 200


async def test_a_bad_request_behind_a_good_one_takes_no_answer_from_it() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/wait") + get("/echo") + b"\x00\r\n\r\n")
        await until(lambda: bool(served.connections[0].pipeline))
        served.go.set()
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        assert await client.rest() == b""


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
async def test_an_upgrade_is_answered_as_a_request(upgrade: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/echo", f"Upgrade: {upgrade}", "Connection: Upgrade") + b"x" * 100)
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_heads_have_to_arrive_in_time() -> None:
    async with Served() as served:
        silent, slow, second, good = [await served.connect() for _ in range(4)]
        await second.ask(get("/echo"))
        await good.ask(get("/echo"))
        await slow.send(b"GET / HTTP/1.1\r\n")
        await second.send(b"\r\n")
        await until(lambda: sum(c.timeout_keep_alive_task is None for c in served.connections) == 3)
        await until(lambda: sum(c._head > 0 for c in served.connections) == 1)
        served.later(0)
        served.later(HEAD_S - 1)
        assert len([c for c in served.connections if not c._stopped]) == 4
        served.later(HEAD_S + 1)
        assert await silent.rest() == b""
        await refused(slow, 408, "too_slow")
        assert await second.rest() == b""  # nothing of a request has come that an answer could be for
        assert (await good.ask(get("/echo")))[0] == 200  # it was idle between two requests


async def test_a_body_has_to_keep_coming() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(post("/echo", bytes(100), 10**6))
        await until(lambda: served.connections[0]._body == 100)
        connection = served.connections[0]
        served.later(0)
        served.later(WINDOW_S - 1)
        await client.send(bytes(WINDOW_BYTES))
        await until(lambda: connection._body > WINDOW_BYTES)
        served.later(WINDOW_S + 1)
        assert not connection._stopped
        await client.send(bytes(WINDOW_BYTES // 2))
        served.later(2 * WINDOW_S + 2)
        assert "at least 16384 bytes in 10 s" in await refused(client, 408, "too_slow")
        await until(lambda: not served.server.server_state.tasks)  # the application has heard of it too
        assert served.asked == ["/echo"]


@pytest.mark.parametrize(("method", "ends"), [("POST", True), ("PUT", False)])
async def test_a_body_in_memory_has_to_end(method: str, ends: bool) -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(post("/echo", bytes(100), 10**6, method=method))
        await until(lambda: bool(served.connections[0]._body))
        served.later(0)
        await client.send(bytes(WINDOW_BYTES))
        await until(lambda: served.connections[0]._body > WINDOW_BYTES)
        served.later(BODY_S + 1)
        assert served.connections[0]._stopped is ends


async def test_time_in_which_the_service_does_not_want_a_body_does_not_count() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/wait") + post("/echo", bytes(100), 200))
        await until(lambda: bool(served.connections[0].pipeline))
        served.later(0)
        served.later(WINDOW_S + 1)
        served.go.set()
        await client.answer()
        await client.send(bytes(100))
        assert await client.answer() == (200, b"200 2")


async def test_an_answer_has_to_be_read() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/big"))
        connection = served.connections[0]
        await until(lambda: connection.flow.write_paused)
        served.later(0)
        served.later(UNREAD_S - 1)
        assert not connection.transport.is_closing()
        served.later(UNREAD_S + 1)
        assert connection.transport.is_closing()


@pytest.mark.parametrize("headers", [["Connection: close"], ["Upgrade: h2c", "Connection: Upgrade"]])
async def test_the_last_answer_may_be_read_slowly(headers: list[str]) -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(get("/whole", *headers))
        await until(lambda: served.connections[0].transport.is_closing())
        left = connection_left(served)
        for seconds in range(0, 5 * int(UNREAD_S), int(UNREAD_S) // 2):
            served.later(seconds)
            while connection_left(served) == left:
                await client.reader.read(2**18)
            left = connection_left(served)
        assert len(await client.rest()) > 2**20


def connection_left(served: Served) -> int:
    return served.connections[0].transport.get_write_buffer_size()


async def test_a_body_that_is_answered_before_its_end_may_go_on_for_a_while() -> None:
    async with Served() as served:
        client = await served.connect()
        await client.send(post("/early", bytes(100), 10**9))
        assert await client.answer() == (200, b"early")
        served.later(0)
        served.later(REST_S - 1)
        assert not served.connections[0].transport.is_closing()
        served.later(REST_S + 1)
        assert served.connections == [] or served.connections[0].transport.is_closing()


async def test_connections_that_wait_make_room_for_those_that_ask() -> None:
    async with Served(most=10) as served:
        clients = [await served.connect() for _ in range(10)]
        for client in clients:
            assert (await client.ask(get("/echo")))[0] == 200
        for _ in range(30):
            client = await served.connect()
            assert (await client.ask(get("/echo")))[0] == 200
        assert len(served.connections) <= 10
        assert await clients[0].rest() in (b"", b"(reset)")


async def test_when_all_connections_are_at_work_health_checks_are_answered() -> None:
    async with Served(most=10) as served:
        clients = [await served.connect() for _ in range(10)]
        for client in clients:
            await client.send(post("/echo", b"a", 10))
        await until(lambda: len(served.asked) == 10)
        for _ in range(3 * FOR_PROBES):
            await served.connect()  # and never asks
        probe, other = await served.connect(), await served.connect()
        assert (await probe.ask(get("/health/live")))[0] == 200
        assert await probe.rest() == b""
        await other.send(get("/echo"))
        await refused(other, 503, "too_many_connections")
        assert len(served.connections) <= 10 + FOR_PROBES
        for client in clients:
            assert await client.ask(b"bcdefghij") == (200, b"10 2")
        after = await served.connect()
        assert (await after.ask(get("/echo")))[0] == 200


async def test_who_was_turned_away_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Served() as served:
        for data in (b"\x00\r\n", b"\x01\r\n", get("/echo", *["X: y"] * 101)):
            client = await served.connect()
            await client.send(data)
            await client.rest()
        served.door._reported -= 60
        served.later(0)
        served.later(0)
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert "2 malformed_request, 1 headers_too_large" in lines[0]
