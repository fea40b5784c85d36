import logging
import threading

import pytest

from app.watch import CURE_S, TICK_S, Kind, Watch
from tests.process import until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_over_its_limit_is_told_once_and_gets_its_cure(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[Kind] = []
    cured: list[str] = []
    clock = Clock()
    watch = Watch(counted.append, clock)
    with watch.begin("run", "a run", 1.0, lambda: cured.append("run")), watch.begin("load", "a load", 1.5):
        for _ in range(4):
            clock.now += TICK_S
            watch.look()
        assert [(late.kind, late.what, late.seconds, late.limit) for late in watch.overdue()] == [
            ("run", "a run", 2.0, 1.0),
            ("load", "a load", 2.0, 1.5),
        ]
    assert (counted, cured) == (["run", "load"], ["run"])
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "a run has not ended in 1.5 s, its limit is 1 s",
        "a load has not ended in 2.0 s, its limit is 1.5 s",
    ]
    assert watch.overdue() == []


@pytest.mark.parametrize(("kind", "vital"), [("run", True), ("decode", True), ("load", False), ("follower", False)])
def test_only_vital_work_that_resists_its_cure_is_stuck(kind: Kind, vital: bool) -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    with watch.begin(kind, "it", 1.0):
        clock.now += CURE_S
        assert watch.stuck() is None
        clock.now += 2
        stuck = watch.stuck()
        assert (stuck is not None) == vital
        if stuck:
            assert str(stuck) == "it has not ended in 7 s, its limit is 1 s"
    assert watch.stuck() is None


def test_a_sign_of_life_begins_the_time_anew() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    work = watch.begin("follower", "the follower", 1.0)
    clock.now += 2
    assert len(watch.overdue()) == 1
    watch.goes_on(work, "the follower", 3.0)
    clock.now += 2
    assert watch.overdue() == []


def test_time_in_which_the_whole_process_stood_still_does_not_count() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    with watch.begin("run", "a run", 10.0):
        clock.now += 3600
        watch.look()
        assert watch.overdue() == []


def test_the_watchdog_needs_no_other_thread() -> None:
    cured = threading.Event()
    watch = Watch()
    with watch.watching(), watch.begin("run", "a run", 0.0, cured.set):
        until(cured.is_set)


@pytest.mark.anyio
async def test_an_event_loop_that_stands_still_is_noticed() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    async with watch.beating():
        clock.now += 3600  # without a turn of the loop
        assert [late.kind for late in watch.overdue()] == ["event_loop"]
        assert watch.stuck()
    assert watch.overdue() == []
