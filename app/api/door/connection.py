"""One connection over HTTP/1.1: uvicorn's, with limits on headers, on time and on what a client makes it hold."""

import asyncio
import logging
from typing import Any, ClassVar, cast

import httptools
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.door.door import Door, ProbesOnly
from app.api.door.flow import Flow
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
REST_S = 30.0  # for the rest of a body that is answered already: to close at once would take the answer back
LINGER_S = 5.0  # for a client that was refused to read why, while what it sends is dropped
LINGER_BYTES = 4 * 1024**2
FIRST_REQUEST_S = 1.0  # for the first request of a connection that the end of the process finds open

logger = logging.getLogger(__name__)


class Connection(HttpToolsProtocol):
    """A connection that ends: uvicorn's protocol, which limits neither headers nor time.

    A request's bytes go into the parser in pieces, and no further while requests wait for their turn in the pipeline.
    `check`, called about once a second, closes what has taken too long. So no request sets a timer for this.
    """

    door: ClassVar[Door]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)
        self.url = b""
        self._asked: object = self  # the scope of the last request whose head is complete
        self._stopped = False  # takes nothing more from the client
        self._rest = b""  # received, and not yet parsed
        self._head = 0  # bytes of a head that is not complete
        self._length: int | None = None  # of the body, 0 without a Content-Length, None before it is asked for
        self._frames = 0  # bytes received of a body with its chunks' sizes, extensions and trailers
        self._body = 0  # bytes of the body itself
        self._dropped = 0  # bytes that came after the refusal
        # times are those of the first look at what has begun, so that no request asks for the time
        self._since: float | None = None  # of the stage
        self._window: float | None = None
        self._mark = 0  # of _body, as the window began
        self._unread: int | None = None  # bytes of answers in memory, as the time _reading began
        self._reading = 0.0
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            self._drop(len(data))
            return
        if self.timeout_keep_alive_task is not None:
            self._wake()
        if self._rest or self.pipeline or len(data) > PIECE:
            self._parse_long(data)
        else:
            self._parse(data)

    def _wake(self) -> None:
        """Leaves the idle state: these are the first bytes of another request."""
        self._unset_keepalive_if_required()
        self._since = None

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.transport.abort()

    def _parse_long(self, data: bytes) -> None:
        if not self._rest and not self.pipeline:
            if self._left() < len(data):
                end = data.find(b"\r\n\r\n", 0, PIECE)  # mostly of a head: the body then comes in one piece
                cut = PIECE if end < 0 else end + 4
                self._parse(data[:cut])
                data = data[cut:]
            if self._left() >= len(data) and not self._stopped and not self.pipeline:
                self._parse(data)
                return
        self._rest += data
        self._parse_rest()

    def _parse_rest(self) -> None:
        data, at = memoryview(self._rest), 0
        while at < len(data) and not self._stopped and not self.pipeline:
            size = max(PIECE, self._left())
            self._parse(data[at : at + size])
            at += size
        self._rest = b"" if self._stopped else bytes(data[at:])
        self._flow.hold(bool(self._rest))

    def _left(self) -> int:
        """Returns how many bytes of a body with a Content-Length are to come."""
        if self._in_head() or not self.cycle.more_body:
            return 0
        if self._length is None:
            self._length = int(dict(self.scope["headers"]).get(b"content-length", 0))
        return max(0, self._length - self._body)

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # a request without a body: it is answered as if it had not asked
            self.cycle.keep_alive = False
            self._stop()
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServiceError) else MalformedRequest(_why(error)))
        else:
            if self.scope is not self._asked or self.cycle.more_body:
                self._check_size(len(data))

    def _in_head(self) -> bool:
        """Whether the next request has begun, or the first one is waited for. A request begins with a scope."""
        return self.scope is not self._asked

    def _check_size(self, size: int) -> None:
        """Refuses a head that is too long before it is complete, and a body of little but frames."""
        if self._in_head():
            self._head += size
            if self._head > HEAD_BYTES + PIECE:  # the last piece may have begun with another request
                self._refuse(_too_large(self._head))
        elif not self._left():
            self._frames += size
            if self._frames > HEAD_BYTES + 2 * self._body:
                self._refuse(MalformedRequest("the chunks of a body should be larger than what is around them"))

    def on_headers_complete(self) -> None:
        if self._head or len(self.headers) > MOST_HEADERS:  # else it is not longer than a piece
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > HEAD_BYTES or len(self.headers) > MOST_HEADERS:
                raise _too_large(size, len(self.headers))
        full = len(self.connections) >= self.door.most and self.door.full
        if full:
            self.app = cast(Any, ProbesOnly(cast(ASGIApp, self.app), self.door))  # Any: uvicorn has types of its own
        super().on_headers_complete()
        if full:
            self.cycle.keep_alive = False
        self.headers = []  # trailers come here, which nobody reads
        self._asked = self.scope
        self._head = self._frames = self._body = self._mark = 0
        self._length = self._since = self._window = None
        self.door.busy(self)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._rest and not self.transport.is_closing():
            self._wake()
            self._parse_rest()
        if self.cycle.response_complete:
            self._since = None  # a body may still be coming
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
            if not self._in_head() and self.cycle.more_body and (late := self._late(now)):
                self._refuse(late)
        elif self._unread is not None or self.transport.is_closing():
            return  # the last answer is being read
        elif self._stopped or self._is_cut_short():
            if self._elapsed(now) > (LINGER_S if self._stopped else REST_S):
                self.transport.abort()
        elif self.timeout_keep_alive_task is None and self._elapsed(now) > HEAD_S:
            self._end_head()

    def _elapsed(self, now: float) -> float:
        """Returns the seconds since the stage was first looked at."""
        if self._since is None:
            self._since = now
        return now - self._since

    def _end_head(self) -> None:
        error = TooSlow(f"a request's headers should arrive within {HEAD_S:g} s")
        if not (self._in_head() and self._head):  # no request has begun that an answer could be for
            self.door.count(error.code)
            self.transport.close()
        else:
            self._refuse(error)

    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def _is_cut_short(self) -> bool:
        """Whether a request was answered before all of its body had come."""
        return not self._in_head() and self.cycle.more_body

    def _late(self, now: float) -> TooSlow | None:
        """Returns the error for a body that comes too slowly. Time in which nobody here wanted it does not count."""
        if self._elapsed(now) > BODY_S and self.scope["method"] != "PUT":
            return TooSlow(f"a request's body should arrive within {BODY_S:g} s")
        if self._window is None or self.flow.read_paused or self.cycle.waiting_for_100_continue:
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
        busy, fresh = self._is_busy(), self._in_head()
        if busy and (fresh or self.pipeline):
            self.cycle.keep_alive = False
            self._stop()
            return
        self._stop()
        if busy and self.cycle.response_started:
            self.transport.abort()
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
        self._stopped, self._since, self._rest = True, None, b""
        self._flow.hold(False)


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
