"""The queue as its clients see it: on a real database, without a worker where none is needed."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.postgres import postgres
from tests.process import ROOT, environment, free_port, until
from tests.training.engine import Engine, ask
from tests.training.jobs.bad_rows import Attack, ask_about_bad_rows
from training.cli.command import main
from training.config import TrainConfig
from training.jobs.database import JobsDatabase, sqlite_fault
from training.jobs.job import (
    DatasetRef,
    Job,
    JobFinished,
    JobNotFound,
    JobNotResumable,
    JobsUnavailable,
    KeyReused,
)
from training.jobs.jobs import Jobs
from training.jobs.settings import SharedSettings
from training.runs.records import PublishRecord

CONFIG = TrainConfig(data=Path("photos"))
PHOTOS = DatasetRef(name="photos", revision=3)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def test_importing_jobs_imports_neither_the_engine_nor_tensorflow() -> None:
    code = "import sys, training.jobs.jobs; print({'dbos', 'sqlalchemy', 'tensorflow', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_submitted_job_waits_in_the_queue(engine: Engine) -> None:
    job, made = ask(engine.jobs.submit(CONFIG, PHOTOS, priority=5))
    assert made
    assert (job.state, job.priority, job.attempt, job.config, job.dataset) == ("queued", 5, 1, CONFIG, PHOTOS)
    assert (job.started, job.finished, job.worker, job.phase, job.version, job.reason) == (None,) * 6
    assert ask(engine.jobs.get(job.id)) == job
    assert not engine.jobs.run(job.id).folder.exists()


def test_a_request_lies_in_the_database_as_plain_json(engine: Engine) -> None:
    job, _ = ask(engine.jobs.submit(CONFIG, PHOTOS))
    database = JobsDatabase(engine.shared)
    (row,) = ask(database.ask(lambda client: client.list_workflows(workflow_ids=[job.id])))
    ask(database.close())
    dataset = {"name": "photos", "revision": 3, "fingerprint": None}
    assert row.input is not None
    assert list(row.input["args"]) == [job.id, {"config": CONFIG.model_dump(mode="json"), "dataset": dataset}]


def test_an_id_is_no_pattern(engine: Engine) -> None:
    job = engine.submit()
    for id in ("", "%", job.id[:-1], f"{job.id}.1", f"{job.id}.2", "../etc", job.id.upper() + "%"):
        with pytest.raises(JobNotFound):
            ask(engine.jobs.get(id))


def test_a_key_makes_one_job(engine: Engine) -> None:
    async def at_once() -> list[tuple[Job, bool]]:
        return await asyncio.gather(*(engine.jobs.submit(CONFIG, PHOTOS, key="monday") for _ in range(8)))

    answers = ask(at_once())
    assert len({job.id for job, _ in answers}) == 1
    assert sum(made for _, made in answers) == 1
    newer = PHOTOS.model_copy(update={"revision": 4})
    assert ask(engine.jobs.submit(CONFIG, newer, key="monday"))[0].dataset == PHOTOS
    for config, priority in ((CONFIG.model_copy(update={"epochs": 2}), 0), (CONFIG, 1)):
        with pytest.raises(KeyReused):
            ask(engine.jobs.submit(config, PHOTOS, priority=priority, key="monday"))
    assert ask(engine.jobs.submit(CONFIG, PHOTOS, key="tuesday"))[1]
    assert ask(engine.jobs.list())[1] == 2


def test_the_list_is_newest_first_and_in_pages(engine: Engine) -> None:
    ids = [engine.submit().id for _ in range(7)]
    ask(engine.jobs.cancel(ids[3]))
    page, total, _ = ask(engine.jobs.list(limit=3, offset=2))
    assert ([job.id for job in page], total) == (ids[4:1:-1], 7)
    page, total, _ = ask(engine.jobs.list(["cancelled", "failed"]))
    assert ([job.id for job in page], total) == ([ids[3]], 1)
    assert ask(engine.jobs.list(offset=7)) == ([], 7, [])


def test_states_are_of_the_newest_attempts(engine: Engine) -> None:
    first, second = engine.submit().id, engine.submit().id
    ask(engine.jobs.cancel(first))
    assert ask(engine.jobs.states()) == {first: (1, "cancelled"), second: (1, "queued")}
    ask(engine.jobs.resume(first))
    assert ask(engine.jobs.states())[first] == (2, "queued")


def test_connecting_takes_seconds_at_most() -> None:
    for url, expected in (
        ("postgresql://a@b/c", "postgresql://a@b/c?connect_timeout=5"),
        ("postgresql://a@b/c?sslmode=require", "postgresql://a@b/c?sslmode=require&connect_timeout=5"),
        ("postgresql://a@b/c?connect_timeout=9", "postgresql://a@b/c?connect_timeout=9"),
    ):
        assert SharedSettings(database=SecretStr(url)).database_url == expected


def test_a_queued_job_is_cancelled_and_resumed(engine: Engine) -> None:
    id = engine.submit(priority=2).id
    with pytest.raises(JobNotResumable, match="queued"):
        ask(engine.jobs.resume(id))
    assert ask(engine.jobs.cancel(id)).state == "cancelled"
    with pytest.raises(JobFinished, match="cancelled"):
        ask(engine.jobs.cancel(id))
    job = ask(engine.jobs.resume(id))
    assert (job.id, job.state, job.attempt, job.priority) == (id, "queued", 2, 2)
    assert ask(engine.jobs.list())[1] == 1


def test_a_dataset_is_in_use_until_its_jobs_are_over(engine: Engine) -> None:
    one, _ = ask(engine.jobs.submit(CONFIG, PHOTOS))
    two, _ = ask(engine.jobs.submit(CONFIG, DatasetRef(name="photos")))
    ask(engine.jobs.submit(CONFIG, DatasetRef(name="photos2")))
    assert ask(engine.jobs.using("photos")) == {one.id: 3, two.id: None}
    ask(engine.jobs.cancel(one.id))
    assert ask(engine.jobs.using("photos")) == {two.id: None}


@pytest.mark.parametrize(
    ("status", "used"),
    [
        *[("ENQUEUED", True), ("DELAYED", True), ("PENDING", True)],
        *[("SUCCESS", False), ("ERROR", False), ("CANCELLED", False), ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", False)],
    ],
)
def test_what_the_engine_says_of_a_job_decides_whether_its_dataset_is_in_use(
    engine: Engine, status: str, used: bool
) -> None:
    job = engine.submit()
    engine.spoil(job.id, status=status)
    assert ask(engine.jobs.using("photos")) == ({job.id: None} if used else {})


def test_pruning_keeps_what_ended_last_and_what_has_not_ended(engine: Engine) -> None:
    engine.worker(kind="fast")
    ids = [engine.submit().id for _ in range(3)]
    for id in ids:
        engine.ends(id)
    engine.close()
    waiting = engine.submit().id
    assert ask(engine.jobs.prune(1)) == ids[1::-1]
    assert [job.id for job in ask(engine.jobs.list())[0]] == [waiting, ids[2]]
    assert [engine.jobs.run(id).folder.exists() for id in ids] == [False, False, True]
    ask(engine.jobs.cancel(waiting))


def test_a_finished_job_is_neither_cancelled_nor_resumed(engine: Engine) -> None:
    engine.worker(kind="fast")
    job = engine.ends(engine.submit().id)
    assert job.started is not None
    assert job.finished is not None
    assert abs(job.finished.timestamp() - time.time()) < 60
    with pytest.raises(JobFinished, match="succeeded"):
        ask(engine.jobs.cancel(job.id))
    with pytest.raises(JobNotResumable, match="succeeded"):
        ask(engine.jobs.resume(job.id))


def test_a_database_that_is_away_is_said_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    places = SharedSettings.model_validate(
        {"state": tmp_path, "database": f"postgresql://resnext:secret@127.0.0.1:{free_port()}/jobs"}
    )
    jobs = Jobs(places)
    ask(jobs.open())
    assert "the jobs' database does not answer" in caplog.text
    with pytest.raises(JobsUnavailable, match="refused"):
        ask(jobs.list())
    assert "secret" not in caplog.text


def test_the_queue_is_the_same_on_postgresql(tmp_path: Path) -> None:
    with postgres() as server:
        engine = Engine(tmp_path, server.url)
        test_a_key_makes_one_job(engine)
        test_a_queued_job_is_cancelled_and_resumed_beside(engine)
        ask_about_bad_rows(engine, str(Attack(tmp_path / "attacked")))
        assert not (tmp_path / "attacked").exists()
        engine.close()
    with pytest.raises(JobsUnavailable):
        ask(engine.jobs.list())


def test_a_queued_job_is_cancelled_and_resumed_beside(engine: Engine) -> None:
    """Other jobs are left alone."""
    other, id = engine.submit().id, engine.submit().id
    ask(engine.jobs.cancel(id))
    assert ask(engine.jobs.get(other)).state == "queued"
    assert ask(engine.jobs.resume(id)).attempt == 2


def test_the_command_line_looks_after_jobs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in engine.settings.items():
        monkeypatch.setenv(f"RESNEXT_{name.upper()}", value)
    id = engine.submit().id
    assert main(["jobs", "list", "--json"]) == 0
    assert [job["id"] for job in json.loads(capsys.readouterr().out)] == [id]
    assert main(["jobs", "list", "--only", "failed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["jobs", "list"]) == 0
    assert id in capsys.readouterr().out
    assert main(["jobs", "cancel", id]) == 0
    assert main(["jobs", "cancel", id]) == 1
    assert "nothing to cancel" in capsys.readouterr().err
    assert main(["jobs", "resume", id]) == 0
    assert main(["jobs", "show", id, "--json"]) == 0
    assert '"attempt": 2' in capsys.readouterr().out
    assert main(["jobs", "show", id]) == 0
    assert main(["jobs", "reassign", "nobody"]) == 0
    assert main(["jobs", "cancel", id]) == 0
    assert main(["jobs", "prune", "--keep", "0"]) == 0
    assert id in capsys.readouterr().out
    assert main(["jobs", "show", id]) == 1


def test_the_worker_takes_its_places_as_flags_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "worker", "--name", "w", "--state", str(tmp_path / "here")]
    worker = subprocess.Popen(command, cwd=ROOT, env=environment(state=str(tmp_path / "there")))
    jobs = Jobs(SharedSettings(state=tmp_path / "here"))
    until(lambda: [info.name for info in jobs.workers() if info.alive] == ["w"])
    worker.kill()
    worker.wait()


def test_a_sqlite_that_the_engine_can_not_use_is_said() -> None:
    assert sqlite_fault((3, 11), (3, 40, 1)) is None
    assert sqlite_fault((3, 13), (3, 46, 1)) is None
    assert "3.42 or newer, this one is 3.40.1" in str(sqlite_fault((3, 13), (3, 40, 1)))


def test_a_job_has_succeeded_where_its_head_stays_active(engine: Engine) -> None:
    """A fine-tuning publishes its head first; that all layers are rejected afterwards takes nothing away."""
    engine.hold("gating", "start")
    job = engine.submit(gate={"policy": "never"})
    engine.worker()
    engine.held("gating", "start")
    head = engine.jobs.run(job.id).of_head()
    head.folder.mkdir()
    head.finish("publishing", PublishRecord(version=7, active=True))
    engine.release("gating", "start")
    ended = engine.ends(job.id)
    assert (ended.state, ended.version, ended.reason) == ("succeeded", 7, "gate.policy is never")
