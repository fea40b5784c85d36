"""Processes share what one of them has measured."""

import threading
from pathlib import Path

import pytest

from app.execution.measured import Curve, Measured, Measurements

MEASURED = Measured(
    precision="int8",
    speeds={"int8": 70.5},
    alone=Curve(seconds={1: 0.01}, batch=1),
    crowd=Curve(seconds={1: 0.02, 2: 0.03}, batch=2),
)


def test_what_is_kept_is_known_of_that_network_alone(tmp_path: Path) -> None:
    for kept in (Measurements(), Measurements(tmp_path)):
        with kept.of("one") as known:
            assert known is None
            kept.keep("one", MEASURED)
        with kept.of("one") as known, kept.of("other") as unknown:
            assert (known, unknown) == (MEASURED, None)


def test_who_asks_meanwhile_waits_and_knows(tmp_path: Path) -> None:
    first, second, found = Measurements(tmp_path), Measurements(tmp_path), list[Measured | None]()
    asking = threading.Event()

    def ask() -> None:
        asking.set()
        with second.of("one") as known:
            found.append(known)

    with first.of("one"):
        thread = threading.Thread(target=ask)
        thread.start()
        asking.wait()
        thread.join(0.1)
        assert not found
        first.keep("one", MEASURED)
    thread.join(30)
    assert found == [MEASURED]


def test_where_nothing_was_kept_the_next_one_measures(tmp_path: Path) -> None:
    first, second = Measurements(tmp_path), Measurements(tmp_path)
    with first.of("one"):
        pass  # the version was not fit
    with second.of("one") as known:
        assert known is None


def test_the_best_rate_of_several_runs_at_once() -> None:
    assert Curve(seconds={1: 2.0, 2: 3.0}, batch=2).rate(runs=2) == pytest.approx(4 / 3)
