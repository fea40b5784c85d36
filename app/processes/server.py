"""Ends the process without losing a request."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from app.processes.drain import Drain

logger = logging.getLogger(__name__)


TICKS = 10  # uvicorn's, in a second


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains: after SIGTERM /health/ready says 503 at once and the port stays open for `delay` s.

    Plain uvicorn closes the port first, and a load balancer learns of the end from refused connections. `check` is
    called once a second with the event loop's time, until the port closes.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, delay: float, check: Callable[[float], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay = delay
        self._check = check

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain.begin()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:  # uvicorn logs the address only when it opens the port itself
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            logger.info("serving on http://%s:%d (Ctrl-C ends it)", host, sockets[0].getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS == 0:
            self._check(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end = time.monotonic() + self._delay
        # a second Ctrl-C ends the wait; polled, since a signal handler cannot set an Event safely
        while time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        self._drain.closing.set()
        await self._close_port(sockets or ())
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn then skips the application's shutdown, and the loop's end would tear it apart
            await self.lifespan.shutdown()

    async def _close_port(self, sockets: Sequence[socket.socket]) -> None:
        """Closes the port, but first takes the connections that the kernel has accepted and nobody here has seen.

        Closing would reset them, though their clients have perhaps sent a request. uvicorn closes the idle connections
        next, so the loop gets a round before that, in which it reads what has arrived.
        """
        held = [listener.dup() for listener in sockets]  # the loop closes its own in a later round
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        await asyncio.sleep(0)
        waiting = []
        for listener in held:
            waiting += _accepted(listener)
            listener.close()  # at once: a connection that comes between the two is reset
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._new_connection, connection)
        await asyncio.sleep(0)

    def _new_connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn makes it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accepted(listener: socket.socket) -> list[socket.socket]:
    listener.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            found.append(connection)
    return found
