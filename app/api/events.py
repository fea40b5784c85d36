"""A training job's events as they happen: each line of its `progress.jsonl` and each change of its state, once.

Both are one sequence to a client, so that every event's id says where it stands in both: `<offset>-<attempt>-<state>`,
the byte offset that follows the last line, and the state that was told last. From it the sequence goes on, on any
replica of the service, after any pause.
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
    """What a client has seen; it is the id of each event."""

    offset: int = 0
    told: JobStatus | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """An id, or a byte offset alone. Raises ValueError."""
        if not (match := CURSOR.fullmatch(text)):
            raise ValueError("should be the id of one of this job's events")
        offset, attempt, state = match.groups()
        return cls(int(offset), JobStatus(int(attempt), cast(JobState, state)) if state else None)

    def __str__(self) -> str:
        return f"{self.offset}-{self.told.attempt}-{self.told.state}" if self.told else str(self.offset)

    def lacks(self, status: JobStatus) -> bool:
        """Whether this status is news. One that comes before what was told is an older answer of the database."""
        return self.told is None or _order(status) > _order(self.told)


class Events:
    """The events of one job, from `path` and `states`. Ends early once `draining` says so."""

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
        """Whether there is nothing to come.

        Raises ValueError when no line ends at the cursor, JobNotFound, JobsUnavailable.
        """
        status = await self._states.now(self._id)
        if not await asyncio.to_thread(_ends_a_line, self._path, cursor.offset):
            raise ValueError(f"should be the id of one of this job's events, none ends at byte {cursor.offset}")
        if status.state in UNFINISHED or cursor.lacks(status):
            return False
        return not await asyncio.to_thread(new_lines, self._path, cursor.offset)

    async def follow(self, cursor: Cursor) -> AsyncIterator[bytes]:
        """What comes after the cursor, encoded. The last state comes when all lines are told, and ends it."""
        spoken = time.monotonic()
        while True:
            try:
                status = await self._status()  # before the lines: when the job was over then, they are all there
            except JobNotFound:
                return  # pruned
            if status and status.state in UNFINISHED and cursor.lacks(status):
                cursor, spoken = Cursor(cursor.offset, status), time.monotonic()
                yield _state(cursor, status)
            lines = await asyncio.to_thread(new_lines, self._path, cursor.offset)
            for offset, fields in lines:
                cursor, spoken = Cursor(offset, cursor.told), time.monotonic()
                yield _encoded(cursor, str(fields["event"]), fields)
            if self._draining():
                return
            if lines:
                continue
            if status and status.state not in UNFINISHED:
                if cursor.lacks(status):
                    yield _state(Cursor(cursor.offset, status), status)
                return
            if time.monotonic() - spoken >= self._keep_alive_s:
                spoken = time.monotonic()
                yield KEEPALIVE_COMMENT
            await asyncio.sleep(self._poll_s)

    async def _status(self) -> JobStatus | None:
        """None while the database does not answer: the lines go on without it."""
        try:
            return await self._states.of(self._id, self._poll_s)
        except JobsUnavailable:
            return None


def new_lines(path: Path, offset: int) -> list[Line]:
    """The whole lines from an offset on, or the first of them, each with the offset that follows it; NaN is None."""
    # a browser takes no NaN
    return [(end, json.loads(line, parse_constant=lambda _: None)) for end, line in next_lines(path, offset)]


def _ends_a_line(path: Path, offset: int) -> bool:
    """Also one that is not there yet: another replica has seen more of a shared file."""
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
