"""The starter as a job: queued where there is no model, once."""

import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import ROOT, environment, until
from tests.training.engine import Engine, ask
from training.config import TrainConfig
from training.datasets.report import DatasetReport
from training.datasets.store import DatasetStore
from training.jobs.starter import CONFIG, queue_starter


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def test_it_is_a_job_on_a_dataset_with_a_report(engine: Engine) -> None:
    job = ask(queue_starter(engine.jobs, "mine"))
    assert job is not None
    assert (job.state, job.dataset.name, job.dataset.revision) == ("queued", "digits", 1)
    wanted = tomllib.loads(CONFIG.read_text()) | {"data": "digits", "name": "mine"}
    assert job.config == TrainConfig.model_validate(wanted)
    store = DatasetStore(engine.shared.datasets)
    summary = store.summary("digits", 1)
    assert (summary.images, summary.classes, summary.fingerprint) == (1797, 10, job.dataset.fingerprint)
    report = DatasetReport.model_validate_json(store.report("digits", 1))
    assert (report.folder, report.unreadable) == ("digits", [])
    assert not list(engine.shared.datasets.glob(".staging-*"))
    store.delete("digits")  # as one that was uploaded


def test_asked_for_again_it_is_the_same_job_whatever_became_of_it(engine: Engine) -> None:
    first = ask(queue_starter(engine.jobs, "resnext50"))
    again = ask(queue_starter(engine.jobs, "resnext50"))
    assert first is not None
    assert again is not None
    ask(engine.jobs.cancel(first.id))
    cancelled = ask(queue_starter(engine.jobs, "resnext50"))
    assert cancelled is not None
    assert (again.id, cancelled.id, cancelled.state) == (first.id, first.id, "cancelled")
    assert ask(engine.jobs.list())[1] == 1
    assert DatasetStore(engine.shared.datasets).revisions("digits") == [1]


def test_a_dataset_of_that_name_is_taken_as_it_is(engine: Engine) -> None:
    (engine.shared.datasets / "digits").mkdir()
    job = ask(queue_starter(engine.jobs, "resnext50"))
    assert job is not None
    assert job.dataset.revision is None


def test_where_a_version_is_live_there_is_none(engine: Engine) -> None:
    folder = engine.shared.models / "resnext50"
    (folder / "1").mkdir(parents=True)
    (folder / "ACTIVE").write_text("1\n")
    assert ask(queue_starter(engine.jobs, "resnext50")) is None
    assert ask(engine.jobs.list()) == ([], 0, [])
    assert not (engine.shared.datasets / "digits").exists()


def test_a_worker_begins_with_it_and_its_next_start_goes_on(engine: Engine) -> None:
    command = [sys.executable, "-m", "training", "worker", "--starter"]
    settings = environment(**engine.settings, name="w", model="mine")
    for _ in range(2):
        worker = subprocess.Popen(command, cwd=ROOT, env=settings)
        engine.workers.append(worker)
        until(lambda: any(info.alive and info.job for info in engine.jobs.workers()))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    (job,), *_ = ask(engine.jobs.list())
    assert (job.state, job.worker, job.attempt, job.config.name) == ("running", "w", 1, "mine")
