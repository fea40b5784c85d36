"""Ends the process without losing a request."""

import asyncio
import logging
import socket
import time
from types import FrameType

import uvicorn

from app.processes.drain import Drain

logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains: after SIGTERM /health/ready says 503 at once and the port stays open for `delay` s.

    Plain uvicorn closes the port first, and a load balancer learns of the end from refused connections.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, delay: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay = delay

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain.begin()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:  # uvicorn logs the address only when it opens the port itself
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            logger.info("serving on http://%s:%d (Ctrl-C ends it)", host, sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end = time.monotonic() + self._delay
        # a second Ctrl-C ends the wait; polled, since a signal handler cannot set an Event safely
        while time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        self._drain.closing.set()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn then skips the application's shutdown, and the loop's end would tear it apart
            await self.lifespan.shutdown()
