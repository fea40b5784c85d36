"""The limit on the connections of a process. It knows which ones wait, and counts clients that were turned away."""

import logging
import resource
import time
from collections import Counter, OrderedDict
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import answer
from app.errors import ServiceError, TooManyConnections

MOST_CONNECTIONS = 2048  # each may hold a quarter of a megabyte before its request is read
FOR_PROBES = 16  # connections beyond the limit, for health checks alone
OWN_FILES = 128  # descriptors for what is no connection: 40 at rest, and uploads, jobs, the database
PROBES = ("/health", "/health/live", "/health/ready")
REPORT_S = 10.0  # between two lines of the log about clients that were turned away

logger = logging.getLogger(__name__)


class Guest(Protocol):
    """A connection, as the door sees it."""

    def evict(self) -> None:
        """Closes the connection, which waits for a request, to make room for another."""

    def check(self, now: float) -> None:
        """Closes the connection if its client is too slow. `now` is the event loop's time in seconds."""


class Door:
    """The bound on connections. For the event loop's thread alone.

    `most` connections are served. When one more comes, the one that has waited longest without a request is closed.
    While all are at work, up to FOR_PROBES more are let in, and only a health check is answered there.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._inside: set[Guest] = set()
        self._waiting: OrderedDict[Guest, None] = OrderedDict()
        self._away: Counter[str] = Counter()
        self._reported = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether as many connections are at work as may be."""
        return len(self._inside) - len(self._waiting) >= self.most

    def enter(self, guest: Guest) -> None:
        """Lets a connection in. If there are too many, closes the one that has waited longest."""
        self._inside.add(guest)
        self.wait(guest)
        if len(self._inside) > self.most + (FOR_PROBES if self.full else 0):
            oldest, _ = self._waiting.popitem(last=False)
            self._inside.discard(oldest)  # now: it hears of its end later, and others may have come by then
            self.count(TooManyConnections.code)
            oldest.evict()

    def leave(self, guest: Guest) -> None:
        """Forgets a connection that is closed."""
        self._inside.discard(guest)
        self.busy(guest)

    def wait(self, guest: Guest) -> None:
        """Notes that a connection has no request under way."""
        self._waiting[guest] = None

    def busy(self, guest: Guest) -> None:
        """Notes that a connection has a request."""
        self._waiting.pop(guest, None)

    def count(self, code: str) -> None:
        """Counts a client that was turned away."""
        self._away[code] += 1

    def check(self, now: float) -> None:
        """Closes the connections of clients that are too slow, and reports in one line who was turned away of late."""
        for guest in list(self._inside):
            guest.check(now)
        elapsed = time.monotonic() - self._reported
        if self._away and elapsed >= REPORT_S:
            counts = ", ".join(f"{number} {code}" for code, number in self._away.most_common())
            logger.warning("clients turned away in the last %.0f s: %s", elapsed, counts)
            self._away.clear()
        if not self._away:
            self._reported = time.monotonic()


class ProbesOnly:
    """An application for connections beyond the limit: answers health checks, and refuses the rest."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].rstrip("/").endswith(PROBES):
            await self._app(scope, receive, send)
            return
        error = self.error()
        self._door.count(error.code)
        await answer(error, scope["path"])(scope, receive, send)

    def error(self) -> ServiceError:
        """Returns the error of a request that finds all connections at work."""
        detail = f"all {self._door.most} connections of this process are at work; try again"
        return TooManyConnections(detail, headers={"Retry-After": "1"})


def most_connections() -> int:
    """Returns how many connections this process can hold, and raises its limit on open files as far as that helps.

    A connection counts as two descriptors, since its answer may be a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OWN_FILES + 2 * (MOST_CONNECTIONS + FOR_PROBES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FOR_PROBES, min(MOST_CONNECTIONS, (soft - OWN_FILES) // 2 - FOR_PROBES))
