from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from pydantic import SecretStr

from app.trainer.job_metrics import job_metrics
from app.trainer.jobs import JobStates
from tests.process import free_port
from tests.training.engine import Engine, ask
from training.jobs.jobs import Jobs


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def shown(metrics: list[Metric]) -> dict[str, float]:
    """Returns the values by name and labels, as `resnext_jobs queued`."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for metric in metrics
        for sample in metric.samples
    }


async def metrics_of(jobs: Jobs, limit: float = 5) -> list[Metric]:
    return await job_metrics(JobStates(jobs, max_age=0), jobs, limit)


def test_jobs_are_counted_and_the_one_that_runs_tells_how_far_it_is(engine: Engine) -> None:
    running, waiting = engine.submit(priority=1), engine.submit()
    engine.trains(running.id)
    found = shown(ask(metrics_of(engine.jobs)))
    assert found["resnext_jobs running"] == found["resnext_jobs queued"] == 1
    assert found["resnext_jobs failed"] == 0
    assert found["resnext_training_workers"] == 1
    assert found[f"resnext_job_phase {running.id} training"] == 1
    assert found[f"resnext_job_trained_ratio {running.id}"] == pytest.approx(1.5 / 4)
    assert found[f"resnext_job_images_per_second {running.id}"] == 81.5
    assert not [name for name in found if waiting.id in name]


def test_without_the_database_nothing_is_said_of_jobs(engine: Engine) -> None:
    away = f"postgresql://user@127.0.0.1:{free_port()}/jobs"
    jobs = Jobs(engine.shared.model_copy(update={"database": SecretStr(away)}))
    assert ask(metrics_of(jobs)) == []
