import os
import sys
import threading
from collections.abc import Callable

import pytest

from app.execution import turns
from app.execution.turns import NICENESS, Turns
from tests.process import until


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Runs:
    """Runs of a load and for requests, in the order in which they got their turn; each ends when it is told to."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.ends = {name: threading.Event() for name in ("load", "request", "other")}
        self.threads: list[threading.Thread] = []

    def start(self, name: str) -> None:
        turn = self.turns.for_load if name == "load" else self.turns.for_request

        def run() -> None:
            with turn():
                self.order.append(name)
                assert self.ends[name].wait(30)

        self.threads.append(started(run))

    def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)


def test_requests_run_side_by_side_and_a_load_waits_for_all_of_them() -> None:
    runs = Runs(Turns())
    runs.start("request")
    runs.start("other")
    until(lambda: len(runs.order) == 2)
    runs.start("load")
    runs.end("request")
    assert len(runs.order) == 2
    runs.end("other", "load")
    runs.join()
    assert runs.order[2] == "load"


def test_requests_wait_for_one_run_of_a_load() -> None:
    runs = Runs(Turns())
    runs.start("load")
    until(lambda: runs.order == ["load"])
    runs.start("request")
    until(lambda: runs.turns._waiting == 1)
    runs.end("load", "request")
    runs.join()
    assert runs.order == ["load", "request"]


def test_a_load_that_never_finds_an_idle_moment_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
    runs = Runs(Turns())
    runs.start("request")
    until(lambda: runs.order == ["request"])
    runs.start("load")
    until(lambda: runs.turns._insisting)
    runs.start("other")
    until(lambda: runs.turns._waiting == 1)
    runs.end("request", "load", "other")
    runs.join()
    assert runs.order == ["request", "load", "other"]


def test_a_load_leaves_gaps_to_requests_and_none_to_an_idle_service() -> None:
    now = 100.0
    runs = Turns(lambda: now)

    def load(seconds: float) -> float:
        nonlocal now
        with runs.for_load():
            now += seconds
        return runs._next_load - now

    assert load(0.5) == 0
    with runs.for_request():
        now += 0.1
    assert load(0.5) == turns.GAP * 0.5
    now += turns.GAP * 0.5
    assert load(0.5) == 0  # the last request is more than a second ago


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
        assert set(threads.map(lambda _: niceness(), range(8))) == {before + NICENESS}
    assert niceness() == before


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
