"""Streams a training job's events as they happen: each line of its `progress.jsonl` and each change of its state, once.

A client gets both as one sequence, so every event's id holds a position in both: `<offset>-<attempt>-<state>`, the byte
offset after the last line, and the state that was sent last. With an id, any replica of the service can continue the
sequence, after a pause of any length.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from app.trainer.jobs import JobStates
from training.jobs.job import UNFINISHED, JobNotFound, JobState, JobStatus, JobsUnavailable
from training.runs.progress import next_lines

KEEP_ALIVE_S = 15.0
POLL_S = 0.2
ORDER: tuple[JobState, ...] = ("queued", "running", "cancelling", "cancelled", "failed", "rejected", "succeeded")
CURSOR = re.compile(rf"(\d{{1,15}})(?:-(\d{{1,9}})-({'|'.join(ORDER)}))?")

Line = tuple[int, dict[str, Any]]  # Any: what JSON holds


class Cursor(NamedTuple):
    """A position in the events: the offset after the last line, and the last state. It is the id of each event."""

    offset: int = 0
    seen: JobStatus | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses an event's id, or a byte offset alone. Raises ValueError."""
        if not (match := CURSOR.fullmatch(text)):
            raise ValueError("should be the id of one of this job's events")
        offset, attempt, state = match.groups()
        return cls(int(offset), JobStatus(int(attempt), cast(JobState, state)) if state else None)

    def __str__(self) -> str:
        return f"{self.offset}-{self.seen.attempt}-{self.seen.state}" if self.seen else str(self.offset)

    def lacks(self, status: JobStatus) -> bool:
        """Whether the client has yet to see this status. An earlier status is an old answer of the database."""
        return self.seen is None or _order(status) > _order(self.seen)


class Events:
    """The events of one job, read from the file `path` and from `states`. They end early once `draining` is true."""

    def __init__(
        self,
        id: str,
        path: Path,
        states: JobStates,
        draining: Callable[[], bool],
        *,
        poll_s: float = POLL_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._id = id
        self._path = path
        self._states = states
        self._draining = draining
        self._poll_s = poll_s
        self._keep_alive_s = keep_alive_s

    async def over(self, cursor: Cursor) -> bool:
        """Whether no event will follow the cursor.

        Raises ValueError when no line ends at the cursor, JobNotFound, JobsUnavailable.
        """
        status = await self._states.now(self._id)
        if not await asyncio.to_thread(_ends_a_line, self._path, cursor.offset):
            raise ValueError(f"should be the id of one of this job's events; no event ends at byte {cursor.offset}")
        if status.state in UNFINISHED or cursor.lacks(status):
            return False
        return not await asyncio.to_thread(new_lines, self._path, cursor.offset)

    async def follow(self, cursor: Cursor) -> AsyncIterator[bytes]:
        """Yields the encoded events after the cursor. The job's last state follows all lines and ends the stream."""
        sent = time.monotonic()
        while True:
            try:
                # read before the lines: if the job is over now, all its lines are written
                status = await self._status()
            except JobNotFound:
                return  # the job was pruned
            if status and status.state in UNFINISHED and cursor.lacks(status):
                cursor, sent = Cursor(cursor.offset, status), time.monotonic()
                yield _state(cursor, status)
            lines = await asyncio.to_thread(new_lines, self._path, cursor.offset)
            for offset, fields in lines:
                cursor, sent = Cursor(offset, cursor.seen), time.monotonic()
                yield _encoded(cursor, str(fields["event"]), fields)
            if self._draining():
                return
            if lines:
                continue
            if status and status.state not in UNFINISHED:
                if cursor.lacks(status):
                    yield _state(Cursor(cursor.offset, status), status)
                return
            if time.monotonic() - sent >= self._keep_alive_s:
                sent = time.monotonic()
                yield KEEPALIVE_COMMENT
            await asyncio.sleep(self._poll_s)

    async def _status(self) -> JobStatus | None:
        """Returns the job's status, or None while the database does not answer. The lines go on without it."""
        try:
            return await self._states.of(self._id, self._poll_s)
        except JobsUnavailable:
            return None


def new_lines(path: Path, offset: int) -> list[Line]:
    """Returns complete lines from an offset on, not always all, each with the offset after it. NaN becomes None."""
    # browsers cannot parse NaN
    return [(end, json.loads(line, parse_constant=lambda _: None)) for end, line in next_lines(path, offset)]


def _ends_a_line(path: Path, offset: int) -> bool:
    """Whether a line ends at the offset, or the file does not reach it: another replica may have seen more."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset - 1))
            return offset == 0 or file.read(1) in (b"\n", b"")
    except FileNotFoundError:
        return True


def _order(status: JobStatus) -> tuple[int, int]:
    return status.attempt, ORDER.index(status.state)


def _state(cursor: Cursor, status: JobStatus) -> bytes:
    fields = {"time": round(time.time(), 3), "event": "state", "state": status.state, "attempt": status.attempt}
    return _encoded(cursor, "state", fields)


def _encoded(cursor: Cursor, event: str, fields: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(fields), event=event, id=str(cursor))
