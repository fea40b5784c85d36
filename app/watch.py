"""The watchdog: it knows what is under way, since when, and how long it may take.

Threads that run models, decode, load or follow say so here as they begin. A thread of its own looks at them, which
depends neither on the event loop nor on those threads.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

logger = logging.getLogger(__name__)

Kind = Literal["run", "turn", "decode", "load", "follower", "event_loop", "intake"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# what no request can do without; the rest may hang and requests are still answered
VITAL: frozenset[Kind] = frozenset({"run", "turn", "decode", "event_loop"})
ENDLESS: frozenset[Kind] = frozenset({"follower", "event_loop"})

TICK_S = 0.5
CURE_S = 5.0  # vital work that goes on for longer after its limit does not end by itself
DECODE_S = 30.0  # that the decoding of one image may take; `training.images` bounds what it costs
LOOP_S = 30.0  # between two signs of life of the event loop
TURN_S = 60.0  # that a run may wait for another one


class Work:
    """A piece of work: what it does, since when by the watch's clock, and for how many seconds it may.

    As a context it ends with its block.
    """

    __slots__ = ("cure", "kind", "limit", "since", "told", "watch", "what")

    def __init__(
        self, watch: "Watch", kind: Kind, what: str, since: float, limit: float, cure: Callable[[], None] | None
    ) -> None:
        self.watch = watch
        self.kind = kind
        self.what = what
        self.since = since
        self.limit = limit
        self.cure = cure
        self.told = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.watch.end(self)


@dataclass(frozen=True)
class Overdue:
    """Work that is over its limit. `seconds` is how long it has been under way; only a restart ends a `stuck` one."""

    kind: Kind
    what: str
    seconds: float
    limit: float
    stuck: bool

    def __str__(self) -> str:
        return f"{self.what} has not ended in {self.seconds:.0f} s, its limit is {self.limit:g} s"


class Watch:
    """All work under way in this process that may hang. Thread-safe; a piece of work costs about a microsecond.

    `count` is called once for each piece of work that is over its limit, in the watchdog's thread.
    """

    def __init__(
        self, count: Callable[[Kind], None] = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._work: dict[Work, None] = {}  # in the order in which it began
        self._stood_still = 0.0
        self._looked = clock()
        self._stop = threading.Event()

    def begin(self, kind: Kind, what: str, limit: float, cure: Callable[[], None] | None = None) -> Work:
        """Notes work that begins now and may take `limit` seconds.

        `cure` is called in another thread when the work is over its limit, never after its end.
        """
        work = Work(self, kind, what, self._clock() - self._stood_still, limit, cure)
        self._work[work] = None  # atomic
        return work

    def end(self, work: Work) -> None:
        """Notes that the work has ended."""
        with self._lock:
            del self._work[work]
        if work.told:
            logger.warning("%s has ended after %.1f s", work.what, self._now() - work.since)

    def goes_on(self, work: Work, what: str, limit: float) -> None:
        """Notes a sign of life of what never ends: the next one comes within `limit` seconds."""
        work.what, work.since, work.limit, work.told = what, self._now(), limit, False

    def overdue(self) -> list[Overdue]:
        """Returns all work that is over its limit, the longest first."""
        now = self._now()
        late = [(now - work.since, work) for work in [*self._work] if now - work.since > work.limit]
        return [
            Overdue(work.kind, work.what, seconds, work.limit, work.kind in VITAL and seconds > work.limit + CURE_S)
            for seconds, work in sorted(late, key=lambda pair: -pair[0])
        ]

    def under_way(self) -> list[str]:
        """Returns what is under way, the longest first, without what never ends."""
        now = self._now()
        return [f"{work.what} for {now - work.since:.0f} s" for work in [*self._work] if work.kind not in ENDLESS]

    def stuck(self) -> Overdue | None:
        """Returns vital work that hangs for good, if any: only a restart helps."""
        return next((found for found in self.overdue() if found.stuck), None)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the watchdog's thread for the length of the block."""
        self._stop.clear()
        thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Watches the event loop for the length of the block."""
        loop = self.begin("event_loop", "the event loop", LOOP_S)
        beating = asyncio.create_task(self._beat(loop))
        try:
            yield
        finally:
            beating.cancel()
            self.end(loop)

    async def _beat(self, loop: Work) -> None:
        while True:
            self.goes_on(loop, loop.what, LOOP_S)
            await asyncio.sleep(TICK_S)

    def _now(self) -> float:
        return self._clock() - self._stood_still

    def _look_on(self) -> None:
        self._looked = self._clock()
        while not self._stop.wait(TICK_S):
            self.look()

    def look(self) -> None:
        """Looks once at all work: ends what is over its limit, tells of it and counts it."""
        late = self._clock() - self._looked - TICK_S
        if late > TICK_S:
            # this thread had no processor, as after SIGSTOP or on a machine that is overloaded: nor had the others
            self._stood_still += late
        self._looked = self._clock()
        now, told = self._now(), []
        with self._lock:  # held while a cure is called: the work cannot end meanwhile, and the next run begin
            for work in [*self._work]:
                if now - work.since > work.limit and not work.told:
                    work.told = True
                    told.append(work)
                    if work.cure:
                        work.cure()
        for work in told:
            logger.error("%s has not ended in %.1f s, its limit is %g s", work.what, now - work.since, work.limit)
            self._count(work.kind)
