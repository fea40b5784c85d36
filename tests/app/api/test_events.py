import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic import SecretStr
from rich.console import Console

from app.api.events import Cursor, Events, new_lines
from app.trainer.jobs import JobStates
from tests.process import free_port
from tests.training.engine import Engine
from tests.training.progress import step
from training.jobs.job import JobNotFound, JobStatus, JobsUnavailable
from training.jobs.jobs import Jobs
from training.runs.console import ProgressLog
from training.runs.progress import CHUNK_BYTES

pytestmark = pytest.mark.anyio

Event = tuple[str, str, dict[str, Any]]  # id, kind and data; Any: what JSON holds


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def log_of(path: Path) -> ProgressLog:
    """Opens the log as a phase's process does, which repairs what a crash left."""
    return ProgressLog(path, Console(quiet=True))


def events_of(engine: Engine, id: str, **options: Any) -> Events:
    states = JobStates(engine.jobs, max_age=0)
    return Events(id, engine.jobs.run(id).progress, states, lambda: False, **{"poll_s": 0.05, **options})


def parsed(block: bytes) -> Event:
    fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines())
    return fields["id"], fields["event"], json.loads(fields["data"])


async def followed(events: Events, cursor: Cursor | None = None) -> list[Event]:
    """Follows the events to the end of the stream."""
    return [parsed(block) async for block in events.follow(cursor or Cursor())]


async def after(stream: AsyncIterator[bytes], count: int) -> list[Event]:
    return [parsed(await asyncio.wait_for(anext(stream), 20)) for _ in range(count)]


async def finished(engine: Engine, lines: int) -> str:
    """Runs a job to its end, with `lines` lines of progress. Returns its id."""
    job = await asyncio.to_thread(engine.submit)
    log = log_of(engine.jobs.run(job.id).progress)
    for number in range(lines):
        log.step(step(number))
    await engine.jobs.cancel(job.id)
    return job.id


async def test_from_any_event_on_come_the_others_once(engine: Engine) -> None:
    id = await finished(engine, 4)
    everything = await followed(events_of(engine, id))
    assert [(kind, data.get("step"), data.get("state")) for _, kind, data in everything] == [
        *[("step", number, None) for number in range(4)],
        ("state", None, "cancelled"),
    ]
    assert len({event_id for event_id, _, _ in everything}) == 5
    for seen, (event_id, _, _) in enumerate(everything, start=1):
        rest = await followed(events_of(engine, id), Cursor.parse(event_id))
        assert [e[0] for e in rest] == [e[0] for e in everything[seen:]]
    offset = Cursor(Cursor.parse(everything[1][0]).offset)  # the state is sent again
    assert [e[0] for e in await followed(events_of(engine, id), offset)] == [e[0] for e in everything[2:]]


async def test_more_than_one_read_holds(engine: Engine) -> None:
    id = await finished(engine, 6000)
    assert engine.jobs.run(id).progress.stat().st_size > CHUNK_BYTES
    assert [data.get("step") for _, _, data in await followed(events_of(engine, id))] == [*range(6000), None]


async def test_events_come_as_they_happen_and_a_change_of_state_before_the_lines_that_follow_it(
    engine: Engine,
) -> None:
    job = await asyncio.to_thread(engine.submit)
    stream = events_of(engine, job.id).follow(Cursor())
    assert [data["state"] for _, _, data in await after(stream, 1)] == ["queued"]
    log = log_of(engine.jobs.run(job.id).progress)
    log.begin("checking")
    assert [data["phase"] for _, _, data in await after(stream, 1)] == ["checking"]
    await engine.jobs.cancel(job.id)
    assert [data["state"] for _, _, data in await after(stream, 1)] == ["cancelled"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    ids = [event_id for event_id, _, _ in await followed(events_of(engine, job.id))]

    await engine.jobs.resume(job.id)
    stream = events_of(engine, job.id).follow(Cursor.parse(ids[-1]))
    assert [(data["state"], data["attempt"]) for _, _, data in await after(stream, 1)] == [("queued", 2)]


async def test_a_line_that_a_crash_cut_off_is_never_sent(engine: Engine) -> None:
    job = await asyncio.to_thread(engine.submit)
    path = engine.jobs.run(job.id).progress
    log_of(path).step(step(1))
    with path.open("ab") as file:
        file.write(b'{"time": 1, "event": "st')
    stream = events_of(engine, job.id, keep_alive_s=0.2).follow(Cursor())
    await after(stream, 2)
    assert await anext(stream) == KEEPALIVE_COMMENT  # it has polled several times
    log_of(path).step(step(2))
    assert [data["step"] for _, _, data in await after(stream, 1)] == [2]
    offsets = [offset for offset, _ in new_lines(path, 0)]
    assert offsets[-1] == path.stat().st_size


async def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    log_of(tmp_path / "progress.jsonl").step(step(1, loss=float("nan"), images_per_second=float("inf")))
    ((_, fields),) = new_lines(tmp_path / "progress.jsonl", 0)
    assert (fields["loss"], fields["images_per_second"]) == (None, None)
    assert new_lines(tmp_path / "missing", 0) == []


async def test_over_means_that_all_was_seen(engine: Engine) -> None:
    id = await finished(engine, 2)
    events = events_of(engine, id)
    ids = [event_id for event_id, _, _ in await followed(events)]
    assert [await events.over(Cursor.parse(seen)) for seen in ids] == [False, False, True]
    assert not await events.over(Cursor())
    await engine.jobs.resume(id)
    assert not await events.over(Cursor.parse(ids[-1]))
    with pytest.raises(JobNotFound):
        await events_of(engine, "nothing").over(Cursor())


async def test_a_cursor_stands_between_lines(engine: Engine) -> None:
    id = await finished(engine, 2)
    with pytest.raises(ValueError, match="no event ends at byte 3"):
        await events_of(engine, id).over(Cursor(3))
    assert not await events_of(engine, id).over(Cursor(10_000))  # another replica may have seen more


@pytest.mark.parametrize("text", ["x", "-1", "1-2", "1-2-happy", "1-running", "1-1-running\n", "9" * 30])
async def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="should be the id"):
        Cursor.parse(text)


@pytest.mark.parametrize("text", ["0", "421", "0-1-queued", "421-12-succeeded"])
async def test_an_id_is_what_it_was(text: str) -> None:
    assert str(Cursor.parse(text)) == text


async def test_an_older_answer_is_no_news() -> None:
    cursor = Cursor(0, JobStatus(2, "running"))
    assert not cursor.lacks(JobStatus(2, "queued"))
    assert not cursor.lacks(JobStatus(1, "failed"))
    assert not cursor.lacks(JobStatus(2, "running"))
    assert cursor.lacks(JobStatus(2, "failed"))
    assert cursor.lacks(JobStatus(3, "queued"))


async def test_draining_ends_it_without_a_last_state(engine: Engine) -> None:
    job = await asyncio.to_thread(engine.submit)
    log_of(engine.jobs.run(job.id).progress).step(step(1))
    events = Events(job.id, engine.jobs.run(job.id).progress, JobStates(engine.jobs), lambda: True)
    async with asyncio.timeout(10):
        assert [kind for _, kind, _ in await followed(events)] == ["state", "step"]


async def test_a_pruned_job_ends_its_stream(engine: Engine) -> None:
    async with asyncio.timeout(10):
        assert await followed(events_of(engine, "nothing")) == []


async def test_lines_go_on_while_the_database_is_away(engine: Engine) -> None:
    url = SecretStr(f"postgresql://nobody@127.0.0.1:{free_port()}/jobs")
    away = Jobs(engine.shared.model_copy(update={"database": url}))
    path = away.run("some").progress
    log_of(path).step(step(1))
    events = Events("some", path, JobStates(away), lambda: False, poll_s=0.05)
    stream = events.follow(Cursor())
    assert [data["step"] for _, _, data in await after(stream, 1)] == [1]
    log_of(path).step(step(2))
    assert [data["step"] for _, _, data in await after(stream, 1)] == [2]
    with pytest.raises(JobsUnavailable):
        await events.over(Cursor())
