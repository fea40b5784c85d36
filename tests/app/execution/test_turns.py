import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from app.errors import LoadTimedOut
from app.execution.turns import GAP, NICENESS, Turns
from app.watch import Watch
from tests.process import until


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Runs:
    """Runs of a load and for requests. Each notes whose turn it is beside its own as it begins, and ends when told."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.lock = threading.Lock()
        self.running: set[str] = set()
        self.began: dict[str, set[str]] = {}  # beside whom, in the order in which they began
        self.ends = {name: threading.Event() for name in ("load", "request", "other")}
        self.threads: list[threading.Thread] = []

    def start(self, name: str) -> None:
        turn = self.turns.for_load if name == "load" else self.turns.for_request

        def run() -> None:
            with turn():
                with self.lock:
                    self.began[name] = set(self.running)
                    self.running.add(name)
                assert self.ends[name].wait(30)
                with self.lock:
                    self.running.remove(name)

        self.threads.append(started(run))

    def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)

    @property
    def order(self) -> list[str]:
        return list(self.began)


def test_requests_run_side_by_side_and_a_load_waits_for_all_of_them() -> None:
    asked = threading.Event()

    def clock() -> float:
        asked.set()  # first by the load, which holds the lock until it waits for an idle moment
        return time.monotonic()

    runs = Runs(Turns(clock, patience_s=30))
    runs.start("request")
    until(lambda: runs.order == ["request"])
    runs.start("other")
    until(lambda: runs.order == ["request", "other"])
    runs.start("load")
    assert asked.wait(30)
    runs.end("request")
    until(lambda: runs.turns.running == 1)
    runs.end("other", "load")
    runs.join()
    assert runs.began == {"request": set(), "other": {"request"}, "load": set()}


def test_requests_wait_for_one_run_of_a_load() -> None:
    runs = Runs(Turns())
    runs.start("load")
    until(lambda: runs.order == ["load"])
    runs.start("request")
    until(lambda: runs.turns.waiting == 1)
    runs.end("load", "request")
    runs.join()
    assert runs.began == {"load": set(), "request": set()}


def test_a_load_that_never_finds_an_idle_moment_is_let_through() -> None:
    runs = Runs(Turns(patience_s=0.01))
    runs.start("request")
    until(lambda: runs.order == ["request"])
    runs.start("load")
    until(lambda: runs.turns.insisting)
    runs.start("other")
    until(lambda: runs.turns.waiting == 1)
    runs.end("request", "load", "other")
    runs.join()
    assert runs.order == ["request", "load", "other"]
    assert not any(runs.began.values())


def test_a_load_leaves_gaps_to_requests_and_none_to_an_idle_service() -> None:
    now = 100.0
    runs = Turns(lambda: now)

    def load(seconds: float) -> float:
        nonlocal now
        with runs.for_load():
            now += seconds
        return runs.next_load - now

    assert load(0.5) == 0
    with runs.for_request():
        now += 0.1
    assert load(0.5) == GAP * 0.5
    now += GAP * 0.5
    assert load(0.5) == 0  # the last request is more than a second ago


def test_a_load_gives_up_when_a_run_hangs_and_requests_go_on() -> None:
    turns = Turns(patience_s=0, longest_s=0.05)
    with turns.for_request():
        with (
            pytest.raises(LoadTimedOut, match=r"a run that has not ended in 0\.05 s holds up the load"),
            turns.for_load(),
        ):
            pass
        with turns.for_request():
            assert turns.running == 2
    with turns.for_load():
        pass


def test_a_request_that_waits_for_a_load_that_hangs_is_noticed() -> None:
    watch = Watch()
    runs = Runs(Turns(watch=watch, longest_s=0))
    runs.start("load")
    until(lambda: runs.order == ["load"])
    runs.start("request")
    until(lambda: [late.kind for late in watch.overdue()] == ["turn"])
    runs.end("load", "request")
    runs.join()
    assert watch.overdue() == []


def test_a_turn_ends_with_an_error_in_it() -> None:
    runs = Turns()
    for turn in (runs.for_request, runs.for_load):
        with pytest.raises(ZeroDivisionError), turn():
            raise ZeroDivisionError
    with runs.for_load():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only there has each thread a priority of its own")
def test_beside_requests_a_load_steps_back_and_alone_it_does_not() -> None:
    turns = Turns()
    before = niceness()
    with turns.beside(2) as threads:
        assert threads.submit(niceness).result() == before
    with turns.for_request():
        pass
    with turns.beside(2) as threads:
        lowest = 19  # Linux knows no lower priority
        assert set(threads.map(lambda _: niceness(), range(8))) == {min(before + NICENESS, lowest)}
    assert niceness() == before


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
