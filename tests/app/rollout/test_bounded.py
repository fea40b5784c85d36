import threading

import pytest

from app.errors import LoadTimedOut
from app.rollout.bounded import MOST_HANGING, Bounded
from tests.process import until


def test_a_call_returns_and_raises_what_its_function_does() -> None:
    bounded = Bounded(30, LoadTimedOut)
    assert bounded.call("it", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        bounded.call("it", lambda: 1 / 0)


def test_a_call_that_hangs_is_left_and_a_few_of_them_bar_the_way() -> None:
    bounded, end = Bounded(0.05, LoadTimedOut), threading.Event()
    for number in range(MOST_HANGING):
        with pytest.raises(LoadTimedOut, match=rf"^load {number} has not ended in 0\.05 s$"):
            bounded.call(f"load {number}", end.wait)
    with pytest.raises(LoadTimedOut, match=r"^only a restart helps: load 0 and load 1 and load 2 have not ended$"):
        bounded.call("another", lambda: 3)
    end.set()
    until(lambda: not bounded._under_way)
    assert bounded.call("another", lambda: 3) == 3
