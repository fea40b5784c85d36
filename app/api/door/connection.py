"""One connection over HTTP/1.1: uvicorn's, with limits on headers, on time and on what a client makes it hold."""

import asyncio
import logging
from typing import Any, ClassVar, Literal, cast

import httptools
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.door.door import Door, ProbesOnly
from app.api.problems import answer
from app.errors import HeadersTooLarge, MalformedRequest, ServiceError, TooSlow

HEAD_BYTES = 64 * 1024  # of the request line and the headers together
MOST_HEADERS = 100  # as Apache has it; behind three proxies a browser's request has 40
PIECE = 4096  # of what may hold several requests: each becomes objects of 2 KB as soon as it is parsed

HEAD_S = 10.0  # for the headers of a request, from its first byte, or from the connection's begin
WINDOW_S = 10.0  # for WINDOW_BYTES of a body
WINDOW_BYTES = 16 * 1024  # a line of 1 Mbit/s carries 75 times as much in that time
UNREAD_S = 60.0  # for WINDOW_BYTES of an answer: a person may page through one in a terminal
BODY_S = 300.0  # for a body that lies in memory: 32 MiB at 1 Mbit/s take 268 s. A dataset may take longer, on disk
LINGER_S = 30.0  # for the rest of a body that is answered already: to close at once would take the answer back
FIRST_REQUEST_S = 1.0  # for the first request of a connection that the end of the process finds open

logger = logging.getLogger(__name__)

Stage = Literal["head", "body", "answer"]


class Connection(HttpToolsProtocol):
    """A connection that ends: uvicorn's protocol, which limits neither headers nor time.

    A request's bytes go into the parser in pieces, and no further while requests wait for their turn in the pipeline.
    `check`, called about once a second, closes what has taken too long. So no request sets a timer for this.
    """

    door: ClassVar[Door]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self.url = b""
        self._stage: Stage = "head"
        self._stopped = False  # takes nothing more from the client
        self._rest = b""  # received, and not yet parsed
        self._head = 0  # bytes of a head that is not complete
        self._left = 0  # bytes to come of a body with a Content-Length
        self._frames = 0  # bytes received of a body with its chunks' sizes, extensions and trailers
        self._body = 0  # bytes of the body itself
        self._silent = True  # has never sent anything
        self._since = self._window = self.loop.time()
        self._mark = 0  # of _body, as the window began
        self._unread: int | None = None  # bytes of answers in memory, as the time _reading began
        self._reading = self._since
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        self._silent = False
        self._wake()
        if self._rest or len(data) > PIECE:
            self._rest += data
            self._parse_rest()
        else:
            self._parse(data)

    def _wake(self) -> None:
        if self.timeout_keep_alive_task is not None:  # it was idle, and these are the first bytes of another request
            self._unset_keepalive_if_required()
            self._since = self.loop.time()

    def _parse_rest(self) -> None:
        data, at = memoryview(self._rest), 0
        while at < len(data) and not self._stopped and not self.pipeline:
            size = max(PIECE, self._left)
            self._parse(data[at : at + size])
            at += size
        self._rest = b"" if self._stopped else bytes(data[at:])
        self._flow.hold(bool(self._rest))

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # a request without a body: it is answered as if it had not asked
            self.cycle.keep_alive = False
            self._stop()
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServiceError) else MalformedRequest(_why(error)))
            return
        if self._stage == "head":
            self._head += len(data)
            if self._head > HEAD_BYTES + PIECE:  # the last piece may have begun with another request
                self._refuse(_too_large(self._head))
        elif self._stage == "body" and not self._left:
            self._frames += len(data)
            if self._frames > HEAD_BYTES + 2 * self._body:
                self._refuse(MalformedRequest("the chunks of a body should be larger than what is around them"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage, self._head = "head", 0

    def on_headers_complete(self) -> None:
        size, self._left = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"content-length":
                self._left = int(value)
        if size > HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            raise _too_large(size, len(self.headers))
        full = self.door.full
        if full:
            self.app = cast(Any, ProbesOnly(cast(ASGIApp, self.app), self.door))  # Any: uvicorn has types of its own
        super().on_headers_complete()
        if full:
            self.cycle.keep_alive = False
        self.headers = []  # trailers come here, which nobody reads
        self._stage = "body"
        self._frames, self._body, self._mark = 0, 0, 0
        self._since = self._window = self.loop.time()
        self.door.busy(self)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._left = max(0, self._left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stage = "answer"
        self._since = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._rest and not self.transport.is_closing():
            self._wake()
            self._parse_rest()
        if self.cycle.response_complete:
            self._since = self.loop.time()  # a body may still be coming
            self.door.wait(self)

    def evict(self) -> None:
        """Closes the connection, which has no request under way."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """Closes the connection if the client is too slow: in sending a head or a body, or in reading an answer."""
        if self._is_unread(now):
            self.door.count("answer_unread")
            self.transport.abort()
        elif self._is_busy():
            if self._stage == "body" and (late := self._late(now)):
                self._refuse(late)
        elif self._stopped or self._stage == "body" or self.transport.is_closing():
            if now - self._since > LINGER_S:
                self.transport.abort()
        elif self.timeout_keep_alive_task is None and now - self._since > HEAD_S:
            self._refuse(TooSlow(f"a request's headers should arrive within {HEAD_S:g} s"))

    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def _late(self, now: float) -> TooSlow | None:
        """Returns the error for a body that comes too slowly. Time in which nobody here wanted it does not count."""
        if now - self._since > BODY_S and self.scope["method"] != "PUT":
            return TooSlow(f"a request's body should arrive within {BODY_S:g} s")
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._window, self._mark = now, self._body
        if now - self._window < WINDOW_S:
            return None
        came = self._body - self._mark
        self._window, self._mark = now, self._body
        if came >= WINDOW_BYTES:
            return None
        return TooSlow(f"a body should come with at least {WINDOW_BYTES} bytes in {WINDOW_S:g} s, {came} came")

    def _is_unread(self, now: float) -> bool:
        """Whether the client has read too little of what was written for it."""
        size = self.transport.get_write_buffer_size()
        if not size or self._unread is None or self._flow.resumed:
            self._unread, self._reading, self._flow.resumed = size or None, now, False
        elif now - self._reading >= UNREAD_S:
            if self._unread - size < WINDOW_BYTES:
                return True
            self._unread, self._reading = size, now
        return False

    def shutdown(self) -> None:
        """Begins the connection's end: after the request that it is at, or its first one if that comes soon."""
        if self.cycle is None and not self._stopped:
            self.loop.call_later(FIRST_REQUEST_S, self._close_unless_asked)
        elif self._is_busy():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _close_unless_asked(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Answers with an error in place of the application, and closes the connection.

        Where that would come into another answer, the connection is only closed, after the answers that are due.
        """
        self.door.count(error.code)
        busy, fresh = self._is_busy(), self._stage != "body"
        if busy and (fresh or self.pipeline):
            self.cycle.keep_alive = False
            self._stop()
            return
        self._stop()
        if busy and self.cycle.response_started:
            self.transport.abort()
        elif self._silent:
            self.transport.close()
        else:
            if busy or fresh:
                self.transport.write(_encoded(error, self.url, self.server_state.default_headers))
            self.transport.write_eof()
        if busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.door.wait(self)

    def _stop(self) -> None:
        """Takes nothing more from the client. What it goes on sending is dropped, so that it reads the answer."""
        self._stopped, self._since, self._rest = True, self.loop.time(), b""
        self._flow.hold(False)


class _Flow(FlowControl):
    """uvicorn's flow control, which can also be held: then the application's wish to read more waits."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False
        self.resumed = False  # the client has read enough for another part of the answer

    def hold(self, held: bool) -> None:
        """Stops reading, or allows it again."""
        if held == self._held:
            return
        self._held = held
        if held:
            self.pause_reading()
        else:
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()

    def resume_writing(self) -> None:
        self.resumed = True
        super().resume_writing()


def connections_of(door: Door) -> type[Connection]:
    """Returns uvicorn's `http`: the class of the connections that come in by this door."""

    class OfDoor(Connection):
        pass

    OfDoor.door = door
    return OfDoor


def _too_large(size: int, headers: int = 0) -> HeadersTooLarge:
    came = f"{headers} headers of {size} bytes came" if headers else f"more than {HEAD_BYTES} bytes came"
    return HeadersTooLarge(f"a request should have at most {MOST_HEADERS} headers of {HEAD_BYTES} bytes in all, {came}")


def _why(error: httptools.HttpParserError) -> str:
    return f"the connection should carry requests of HTTP/1.1: {error}"


def _encoded(error: ServiceError, url: bytes, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    response = answer(error, url.decode("latin-1"))
    headers = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[response.status_code] + lines + b"\r\n" + bytes(response.body)
