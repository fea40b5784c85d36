import pytest

from app.errors import QueueFull
from app.inference.admission import Admission


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_bounded_in_images() -> None:
    admission = Admission(10)
    with admission.admit(6), admission.admit(4):
        assert admission.depth == 10
        with pytest.raises(QueueFull, match="10 of 10 images"):
            admission.check()
        with pytest.raises(QueueFull), admission.admit(1):
            pass
    assert admission.depth == 0
    admission.check()


def test_all_of_a_request_or_nothing() -> None:
    admission = Admission(10)
    with admission.admit(8):
        with pytest.raises(QueueFull, match="no room for 3 more"), admission.admit(3):
            pass
        assert admission.depth == 8


def test_places_are_freed_by_errors() -> None:
    admission = Admission(3)
    with pytest.raises(ZeroDivisionError), admission.admit(3):
        _ = 1 / 0
    assert admission.depth == 0


def test_retry_after_is_the_queue_over_the_measured_rate() -> None:
    clock = Clock()
    admission = Admission(100, clock)
    with admission.admit(80):
        for _ in range(20):  # 10 images a second for two seconds
            clock.now += 0.1
            with admission.admit(1):
                pass
        with pytest.raises(QueueFull) as caught, admission.admit(30):
            pass
    assert caught.value.headers == {"Retry-After": "8"}


def test_idle_time_does_not_count() -> None:
    clock = Clock()
    admission = Admission(100, clock)
    with admission.admit(10):
        clock.now += 1
    clock.now += 3600
    with admission.admit(50):
        clock.now += 0.1
        assert admission.retry_after() == 5


def test_retry_after_before_anything_is_measured() -> None:
    admission = Admission(5, Clock())
    with admission.admit(5):
        assert admission.retry_after() == 1


def test_each_change_is_shown() -> None:
    shown: list[int] = []
    admission = Admission(10, show=shown.append)
    with admission.admit(2), admission.admit(3):
        pass
    assert shown == [2, 5, 2, 0]
