"""Rows of the jobs' database that say pickle, or anything else: each is one bad row, and nothing is ever unpickled."""

import json
from collections.abc import Iterator
from pathlib import Path

import dbos
import psycopg
import pytest
from dbos import _serialization as formats
from dbos import _sys_db
from sqlalchemy.exc import DBAPIError

from tests.training.engine import Engine, ask
from tests.training.jobs.bad_rows import Attack, ask_about_bad_rows
from training.cli.command import main
from training.jobs import engine as _  # noqa: F401  # closes the engine's way to a pickle
from training.jobs.starter import queue_starter


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "attacked"
    yield str(Attack(folder))
    assert not folder.exists()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


@pytest.mark.parametrize("format", ["py_pickle", None])
def test_no_way_of_the_engine_leads_to_a_pickle(attack: str, format: str | None) -> None:
    default = formats.DefaultSerializer()
    for read in (formats.deserialize_value, formats.deserialize_args, formats.deserialize_exception):
        with pytest.raises(TypeError, match="pickle, which is never read"):
            read(attack, format, default)
    parts = {f"serialized_{part}": attack for part in ("input", "output", "exception")}
    assert [*map(str, formats.safe_deserialize(default, format, "id", **parts))] == [attack] * 3
    assert formats.safe_deserialize_schedule_context(default, "s", serialized_context=attack) == attack


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (psycopg.errors.DiskFull, True),
        (psycopg.errors.ReadOnlySqlTransaction, True),
        (psycopg.errors.SyntaxError, False),
    ],
)
def test_what_postgresql_cannot_write_now_is_written_later(error: type[psycopg.Error], passing: bool) -> None:
    assert _sys_db.retriable_postgres_exception(DBAPIError("INSERT", {}, error("no"))) == passing  # type: ignore[attr-defined]  # the engine imports it there


def test_the_engine_unpickles_in_one_place() -> None:
    """So closing that one is enough. Steps, events, messages and streams are read by the functions above."""
    found = {
        path.name: source.count("pickle.load")
        for path in Path(dbos.__file__).parent.rglob("*.py")
        if "import pickle" in (source := path.read_text()) or "from pickle" in source
    }
    assert found == {"_serialization.py": 1}


def test_a_bad_row_is_one_bad_row(engine: Engine, attack: str) -> None:
    first = ask_about_bad_rows(engine, attack)
    engine.worker(kind="fast")
    engine.ends(first)
    engine.ends(engine.submit(priority=-1).id)  # the worker has taken all the bad ones before
    assert not (engine.shared.state.parent / "up").exists()
    engine.close()
    over = [id for id, status in ask(engine.jobs.states()).items() if status.state in ("failed", "cancelled")]
    assert set(over) <= set(ask(engine.jobs.prune(0)))


@pytest.mark.parametrize("output", ["[", "{}", "5", None])
def test_a_job_whose_outcome_cannot_be_read_has_failed_and_is_resumed(engine: Engine, output: str | None) -> None:
    id = engine.submit().id
    engine.spoil(id, status="SUCCESS", output=output)
    job = ask(engine.jobs.get(id))
    assert (job.state, job.reason) == ("failed", "its outcome in the jobs' database cannot be read")
    assert ask(engine.jobs.resume(id)).attempt == 2


def test_a_row_under_an_id_of_another_form_is_none_of_the_jobs(engine: Engine) -> None:
    first, second = engine.submit().id, engine.submit().id
    for id in ("../etc", f"{second}.x", f"{second}.0", ""):
        engine.spoil(first, workflow_uuid=id)
        assert ask(engine.jobs.states()).keys() == {second}
        assert [job.id for job in ask(engine.jobs.list())[0]] == [second]
        engine.spoil(id, workflow_uuid=first)


def test_numbers_that_are_none_count_as_none(engine: Engine) -> None:
    first, second = engine.submit().id, engine.submit().id
    engine.spoil(first, created_at="yesterday", priority="high", completed_at="soon", status="SUCCESS")
    assert [job.id for job in ask(engine.jobs.list())[0]] == [second, first]
    assert ask(engine.jobs.get(first)).priority == 0
    assert ask(engine.jobs.prune(0)) == [first]


@pytest.mark.parametrize("file", ["gating.json", "progress.jsonl"])
@pytest.mark.parametrize("text", ["{\n", '{"event": "phase"}\n', "\xff\n"])
def test_a_job_whose_files_cannot_be_read_is_one_such_job(engine: Engine, file: str, text: str) -> None:
    good, bad = engine.submit().id, engine.submit().id
    folder = engine.jobs.run(bad).folder
    folder.mkdir(parents=True)
    (folder / file).write_text(text, "latin-1")
    page = ask(engine.jobs.list())
    assert ([job.id for job in page.jobs], [job.id for job in page.unreadable]) == ([good], [bad])
    assert str(engine.shared.state) not in page.unreadable[0].error
    assert ask(engine.jobs.cancel(good)).state == "cancelled"


def test_the_command_line_names_a_bad_row(
    engine: Engine, attack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in engine.settings.items():
        monkeypatch.setenv(f"RESNEXT_{name.upper()}", value)
    good, bad = engine.submit().id, engine.submit().id
    engine.spoil(bad, serialization="py_pickle", inputs=attack)
    assert main(["jobs", "list", "--json"]) == 0
    printed = capsys.readouterr()
    assert [job["id"] for job in json.loads(printed.out)] == [good]
    assert printed.err.startswith(f"error: job {bad} cannot be read")
    assert main(["jobs", "show", bad]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_starter_that_cannot_be_read_keeps_no_worker_from_its_work(engine: Engine) -> None:
    engine.spoil(engine.submit(key="starter-flowers").id, inputs="[")
    assert ask(queue_starter(engine.jobs, "flowers")) is None
    assert ask(engine.jobs.list()).total == 1


def test_a_damaged_repository_keeps_no_worker_from_its_work(engine: Engine) -> None:
    folder = engine.shared.models / "flowers"
    folder.mkdir(parents=True)
    (folder / "ACTIVE").write_text("one")
    assert ask(queue_starter(engine.jobs, "flowers")) is None
    assert ask(engine.jobs.list()).total == 0
