"""The worker and its jobs: a real engine and real processes, killed in every place."""

import functools
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.postgres import Server, postgres
from tests.process import ROOT, environment, until
from tests.training.engine import Engine, ask, gone
from tests.training.stand_in import STEPS
from training.datasets.store import DatasetStoreError, Summary
from training.jobs.job import DatasetRef, JobsUnavailable, WorkerAlive
from training.jobs.presence import workers
from training.jobs.worker import images_of
from training.runs.progress import PHASES

POINTS = [(phase, where) for phase in PHASES for where in ("start", "middle", "end")]
EVERY_STEP_ONCE = [f"{phase} {step}" for phase in PHASES for step in range(STEPS)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as server:
        yield server


def steps(engine: Engine, id: str) -> list[str]:
    return (engine.jobs.run(id).folder / "steps.txt").read_text().splitlines()


def kill_in_every_place(engine: Engine, *kinds: str) -> None:
    """Kills the phase's process (child), the worker, or both at once, in turns of `kinds`. The job should end well."""
    for phase, where in POINTS:
        engine.hold(phase, where)
    engine.worker()
    id = engine.submit().id
    for (phase, where), kind in zip(POINTS, itertools.cycle(kinds), strict=False):
        if kind != "child":
            engine.worker()  # waits for the name while its predecessor lives
        child = engine.held(phase, where)
        (working,) = engine.jobs.workers()
        assert (working.alive, working.job) == (True, id)
        if kind != "child":
            os.kill(working.pid, signal.SIGKILL)
        if kind != "worker":
            os.kill(child, signal.SIGKILL)
        until(functools.partial(gone, child), 5)
        engine.release(phase, where)
    job = engine.ends(id)
    assert (job.attempt, job.version, job.phase, job.worker) == (1, 1, None, "worker-0")
    assert job.verdict is not None
    assert job.verdict.passed
    assert steps(engine, id) == EVERY_STEP_ONCE


@pytest.mark.parametrize("kind", ["child", "worker", "both"])
def test_killed_in_every_place_a_job_ends_as_if_it_had_not_been(engine: Engine, kind: str) -> None:
    kill_in_every_place(engine, kind)


@pytest.fixture
def postgres_engine(tmp_path: Path, server: Server) -> Iterator[Engine]:
    engine = Engine(tmp_path, server.url)
    yield engine
    engine.close()


def test_the_same_on_postgresql(postgres_engine: Engine) -> None:
    kill_in_every_place(postgres_engine, "worker", "child", "child", "both", "child")


def test_a_database_that_goes_away_does_not_disturb_a_job(postgres_engine: Engine, server: Server) -> None:
    engine = postgres_engine
    engine.hold("training", "middle")
    engine.worker()
    id = engine.submit().id
    child = engine.held("training", "middle")
    server.stop()
    with pytest.raises(JobsUnavailable):
        ask(engine.jobs.get(id))
    engine.release("training", "middle")
    until(lambda: engine.jobs.run(id).done("training"))
    server.start()
    until(lambda: gone(child))
    assert engine.ends(id).attempt == 1
    assert steps(engine, id) == EVERY_STEP_ONCE


def test_a_cancel_ends_the_process_and_a_resume_goes_on(engine: Engine) -> None:
    for phase in PHASES:
        engine.hold(phase, "middle")
    engine.worker()
    id = engine.submit().id
    for phase in PHASES:
        child = engine.held(phase, "middle")
        assert ask(engine.jobs.cancel(id)).state == "cancelling"
        until(functools.partial(gone, child))  # though the phase is still held
        assert engine.ends(id, "cancelled").phase == phase
        engine.release(phase, "middle")
        ask(engine.jobs.resume(id))
    job = engine.ends(id)
    assert job.attempt == 1 + len(PHASES)
    assert "is cancelled" in engine.log()
    assert "Traceback" not in engine.log()
    assert steps(engine, id) == EVERY_STEP_ONCE


def test_a_failed_job_says_why_and_goes_on_when_resumed(engine: Engine) -> None:
    engine.hold("verifying", "fail")
    engine.worker()
    job = engine.ends(engine.submit().id, "failed")
    assert (job.reason, job.phase, job.version) == ("the images are upside down", "verifying", None)
    assert "another warning" in engine.jobs.run(job.id).log.read_text()
    engine.release("verifying", "fail")
    assert ask(engine.jobs.resume(job.id)).state == "queued"
    assert (job := engine.ends(job.id)).attempt == 2
    assert steps(engine, job.id) == EVERY_STEP_ONCE


def test_the_gate_decides_between_succeeded_and_rejected(engine: Engine) -> None:
    engine.worker(kind="fast")
    job = engine.ends(engine.submit(gate={"policy": "never"}).id, "rejected")
    assert f"job {job.id} was rejected: gate.policy is never" in engine.log()
    assert job.reason == "gate.policy is never"
    assert engine.ends(engine.submit().id).reason is None


def test_a_process_that_is_killed_again_and_again_fails_the_job(engine: Engine) -> None:
    engine.hold("checking", "start")
    engine.worker()
    id = engine.submit().id
    for _ in range(4):
        os.kill(engine.held("checking", "start"), signal.SIGKILL)
    reason = "the checking process was killed by SIGKILL 4 times: out of memory?"
    assert engine.ends(id, "failed").reason == reason


def test_a_dataset_that_is_gone_fails_the_job(engine: Engine) -> None:
    job = engine.submit()
    engine.worker(kind="fast")
    shutil.rmtree(engine.shared.datasets / "photos")
    assert engine.ends(job.id, "failed").reason == "there is no dataset 'photos'; there are: none"


def test_images_are_those_the_job_was_made_for(tmp_path: Path) -> None:
    mounted = tmp_path / "photos"
    mounted.mkdir()
    assert images_of(tmp_path, DatasetRef(name="photos")) == mounted
    images = tmp_path / "cats" / "1" / "images"
    images.mkdir(parents=True)
    (tmp_path / "cats" / "CURRENT").write_text("1")
    summary = Summary(created=datetime.now(UTC), images=1, classes=1, bytes=1, fingerprint="abc")
    (tmp_path / "cats" / "1" / "summary.json").write_text(summary.model_dump_json())
    assert images_of(tmp_path, DatasetRef(name="cats", revision=1)) == images
    assert images_of(tmp_path, DatasetRef(name="cats", revision=1, fingerprint="abc")) == images
    for ref in (DatasetRef(name="cats"), DatasetRef(name="cats", revision=1, fingerprint="def")):
        with pytest.raises(DatasetStoreError, match="replaced since the job was submitted"):
            images_of(tmp_path, ref)
    with pytest.raises(DatasetStoreError, match="no revision 2"):
        images_of(tmp_path, DatasetRef(name="cats", revision=2))


def test_a_full_disk_fails_the_job(engine: Engine) -> None:
    job = engine.submit()
    run = engine.jobs.run(job.id)
    run.folder.mkdir(parents=True)
    run.log.symlink_to("/dev/full")
    engine.hold("checking", "fail")  # it has something to print
    engine.worker()
    reason = engine.ends(job.id, "failed").reason
    assert reason is not None
    assert "No space left on device" in reason


def ends_without_room(engine: Engine, worker: subprocess.Popen[bytes]) -> str:
    """Lets a job end while no file of the worker may grow beyond 16 kB, and waits until the worker has noticed."""
    engine.hold("publishing", "end")
    seen = engine.log().count("Retrying")
    id = engine.submit().id
    engine.held("publishing", "end")
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (16 * 1024, resource.RLIM_INFINITY))
    engine.release("publishing", "end")
    until(lambda: engine.log().count("Retrying") > seen)
    assert ask(engine.jobs.get(id)).state == "running"
    return id


def test_an_outcome_that_cannot_be_written_is_written_once_it_can(engine: Engine) -> None:
    worker = engine.worker()
    id = ends_without_room(engine, worker)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert engine.ends(id).attempt == 1
    id = ends_without_room(engine, worker)
    worker.terminate()  # a worker that waits for room ends as any other
    assert worker.wait(20) == 0
    assert ask(engine.jobs.get(id)).state == "running"
    engine.worker()
    assert engine.ends(id).attempt == 1
    assert steps(engine, id) == EVERY_STEP_ONCE


def test_two_workers_share_the_queue_and_one_takes_over_what_the_other_left(engine: Engine) -> None:
    engine.hold("training", "middle")
    first, second = engine.worker("first"), engine.worker("second")
    one, two = engine.submit().id, engine.submit().id
    children = {engine.held("training", "middle"), engine.held("training", "middle")}
    assert {ask(engine.jobs.get(id)).worker for id in (one, two)} == {"first", "second"}
    lost = next(id for id in (one, two) if ask(engine.jobs.get(id)).worker == "first")
    with pytest.raises(WorkerAlive):
        ask(engine.jobs.reassign("first"))
    first.kill()
    first.wait()
    until(lambda: any(gone(child) for child in children), 5)
    engine.release("training", "middle")
    assert [job.id for job in ask(engine.jobs.reassign("first"))] == [lost]
    job = engine.ends(lost)
    assert (job.worker, job.attempt) == ("second", 2)
    engine.ends(one if lost == two else two)
    assert [worker.name for worker in engine.jobs.workers()] == ["second"]
    assert steps(engine, one) == steps(engine, two) == EVERY_STEP_ONCE
    second.terminate()
    engine.worker("first")  # it comes back all the same, and leaves alone what was its own
    assert engine.ends(engine.submit().id).worker == "first"
    assert engine.log().count(f"job {lost} has succeeded") == 1


def test_fifty_jobs_run_in_their_order(engine: Engine) -> None:
    low = [engine.submit(priority=-1).id for _ in range(10)]
    normal = [engine.submit().id for _ in range(30)]
    high = [engine.submit(priority=1).id for _ in range(10)]
    engine.worker(kind="fast")
    engine.ends(low[-1])
    ran = list(dict.fromkeys((engine.shared.state / "order.txt").read_text().split()))
    assert ran == high + normal + low
    # the newest 20 stay, of 20 ends a second, which before Python 3.12 is what the engine's clock has on SQLite
    until(lambda: all(job.state == "succeeded" for job in ask(engine.jobs.list(limit=100))[0]))
    last = engine.ends(engine.submit().id)
    kept = [job.id for job in ask(engine.jobs.list(limit=100))[0]]
    assert len(kept) == 20, engine.log()
    assert (kept[0], kept[-1] in low, set(kept) & set(high)) == (last.id, True, set())


def test_a_stop_does_not_wait_for_the_phase_and_the_next_start_goes_on(engine: Engine) -> None:
    engine.hold("training", "middle")
    worker = engine.worker()
    id = engine.submit().id
    child = engine.held("training", "middle")
    worker.terminate()
    assert worker.wait(60) == 0  # a second where nothing else runs; the phase is still held
    assert gone(child)
    assert "dbos" not in engine.log()
    assert ask(engine.jobs.get(id)).state == "running"
    assert [(worker.alive, worker.job) for worker in engine.jobs.workers()] == [(False, None)]
    engine.release("training", "middle")
    engine.worker()
    assert engine.ends(id).attempt == 1
    assert steps(engine, id) == EVERY_STEP_ONCE


def test_a_finished_job_keeps_no_checkpoints_and_a_failed_one_does(engine: Engine) -> None:
    engine.worker()
    engine.hold("gating", "fail")
    failed = engine.ends(engine.submit().id, "failed")
    assert engine.jobs.run(failed.id).checkpoints.exists()
    engine.release("gating", "fail")
    ask(engine.jobs.resume(failed.id))
    engine.ends(failed.id)
    assert not engine.jobs.run(failed.id).checkpoints.exists()


STARTER = """
import subprocess, sys, time
command = [sys.executable, "-m", "training", "worker", "--name", "child", "--lifeline", "--nice", "7"]
worker = subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(600)
"""


def test_a_worker_ends_with_the_process_that_started_it_and_steps_back_as_it_is_told(engine: Engine) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=ROOT, env=environment(**engine.settings))
    folder = engine.shared.state / "workers"
    until(lambda: any(worker.alive for worker in workers(folder)))
    (worker,) = workers(folder)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    starter.kill()
    starter.wait()
    until(lambda: not workers(folder)[0].alive, 5)
    until(lambda: gone(worker.pid), 5)
