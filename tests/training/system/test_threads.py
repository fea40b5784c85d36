import threading

import pytest

from training.system.threads import within


def test_a_function_in_time_returns_and_raises_as_it_does() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError, match="missing"):
        within(5, lambda: dict[str, int]()["missing"])


def test_a_function_that_takes_too_long_is_given_up() -> None:
    held = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, held.wait)
    held.set()
