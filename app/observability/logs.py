"""The log on stderr: text for people, or JSON for programs, one object a line. In JSON each request has a line, too."""

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from typing import Self

from starlette.types import Scope

from app.observability.observation import CURRENT, Observation
from app.observability.requests import Watcher
from app.observability.stray import log_descriptor, take_output
from app.observability.timing import Timing
from app.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
GATHER_S = 0.1  # lines that come within this time are written together
ATOMIC_BYTES = 4096  # Linux writes this much to a pipe in one piece, whoever else writes (POSIX: at least 512)
LIMIT = 10_000  # lines that may wait for a slow reader: some seconds of all that one process can answer


def configure(settings: Settings) -> None:
    """Sets up the log of this process. In JSON, what others print becomes lines of it, too."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(TEXT))
    if settings.log == "json":
        handler.setStream(os.fdopen(take_output(), "w", buffering=1, encoding="utf-8", closefd=False))
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("PIL").setLevel(logging.INFO)  # it logs every chunk of a PNG


class JsonLines(logging.Formatter):
    """Messages as JSON objects, with the id of the request that logged them, if any. Times are Unix seconds."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := CURRENT.get():
            line["request_id"] = request.id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class RequestLog(Watcher):
    """A line for each request, written in a thread of its own from entering the context to leaving it.

    A reader that does not keep up costs lines, never requests; the log then says how many.
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = log_descriptor() if file is None else file
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        self._some.set()
        await asyncio.to_thread(self._thread.join, 1)  # no longer: perhaps nobody reads

    def end(self, scope: Scope, route: str, request: Observation, seconds: float) -> None:
        """Writes down a request that is over. For the event loop's thread alone."""
        if len(self._lines) >= LIMIT:
            self._dropped += 1
            return
        self._lines.append(request_line(scope, route, request, seconds))
        if not self._some.is_set():
            self._some.set()

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more, and there is no other place to report it
            while not self._ending.is_set():
                self._some.wait()
                self._ending.wait(GATHER_S)
                self._some.clear()
                self._write()
            self._write()

    def _write(self) -> None:
        part = ""
        while self._lines:
            line = self._lines.popleft()
            if len(part) + len(line) > ATOMIC_BYTES:
                os.write(self._file, part.encode())
                part = ""
            part += line
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            part += f'{{"time":{time.time():.3f},"level":"warning","logger":"request","dropped":{dropped}}}\n'
        if part:
            os.write(self._file, part.encode())


def request_line(scope: Scope, route: str, request: Observation, seconds: float) -> str:
    """Returns a request's line. It is put together by hand, since `json.dumps` takes four times as long.

    An id and the name of a key need no quotes (`Requests` and `Keys` see to that), a path may.
    """
    path = "" if scope["path"] == route else f',"path":{json.dumps(scope["path"][:512])}'
    key = f',"key":"{request.key}"' if request.key else ""
    model = f',"version":{request.version}' if request.version else ""
    if request.timings:
        timing = Timing.longest(request.timings)
        model += (
            f',"images":{request.images},"receive_ms":{1e3 * (request.received - request.started):.3f}'
            f',"decode_ms":{1e3 * timing.decode:.3f},"queue_ms":{1e3 * timing.queue:.3f}'
            f',"infer_ms":{1e3 * timing.infer:.3f}'
        )
    trace = f',"trace_id":"{request.span.get_span_context().trace_id:032x}"' if request.span else ""
    return (
        f'{{"time":{time.time():.3f},"level":"info","logger":"request","request_id":"{request.id}"'
        f',"method":"{scope["method"]}","route":"{route}"{path},"status":{request.status}'
        f',"ms":{1e3 * seconds:.3f}{key}{model}{trace}}}\n'
    )
