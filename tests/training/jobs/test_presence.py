"""A worker's name: one process has it, and a reader knows whether that process is alive."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.process import until
from training.jobs.presence import Presence, PresenceError, forget, workers


def test_a_name_is_held_by_one(tmp_path: Path) -> None:
    first, second = Presence(tmp_path / "workers", "one"), Presence(tmp_path / "workers", "one")
    assert workers(tmp_path / "workers") == []
    with first.held(threading.Event(), 0):
        with pytest.raises(PresenceError, match=f"as process {os.getpid()}"), second.held(threading.Event(), 0):
            pass
        first.says("20261124-071512-3f9c2a")
        (info,) = workers(tmp_path / "workers")
        assert (info.name, info.pid, info.alive, info.job) == ("one", os.getpid(), True, "20261124-071512-3f9c2a")
    (info,) = workers(tmp_path / "workers")
    assert not info.alive
    with second.held(threading.Event(), 0):
        assert workers(tmp_path / "workers")[0].job is None
    forget(tmp_path / "workers", "one")
    assert workers(tmp_path / "workers") == []


def test_a_worker_that_is_stopped_falls_silent(tmp_path: Path) -> None:
    record, long_ago = tmp_path / "one.json", time.time() - 60
    with Presence(tmp_path, "one").held(threading.Event(), 0):
        assert workers(tmp_path)[0].silent_seconds is None
        os.utime(record, (long_ago, long_ago))
        assert workers(tmp_path)[0].silent_seconds == pytest.approx(60, abs=5)
        until(lambda: workers(tmp_path)[0].silent_seconds is None)  # its next sign of life
    os.utime(record, (long_ago, long_ago))
    assert (workers(tmp_path)[0].alive, workers(tmp_path)[0].silent_seconds) == (False, None)


@pytest.mark.parametrize("name", ["", "../one", "a b", ".hidden"])
def test_a_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(PresenceError, match="a worker's name"):
        Presence(tmp_path, name)


def test_a_stop_ends_the_wait_for_a_name(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with Presence(tmp_path, "one").held(threading.Event(), 0):
        Presence(tmp_path, "one").says("its job")
        with Presence(tmp_path, "one").held(stop):
            assert workers(tmp_path)[0].job == "its job"


def test_a_damaged_sign_of_life_is_none(tmp_path: Path) -> None:
    with Presence(tmp_path, "one").held(threading.Event()):
        for text in ("", "{", "[]"):
            (tmp_path / "two.json").write_text(text)
            assert [worker.name for worker in workers(tmp_path)] == ["one"]


def test_a_full_disk_leaves_the_old_record(tmp_path: Path) -> None:
    presence = Presence(tmp_path, "one")
    with presence.held(threading.Event()):
        (tmp_path / ".one.json.tmp").symlink_to("/dev/full")  # where it would be written
        presence.says("job")
        assert [worker.job for worker in workers(tmp_path)] == [None]
