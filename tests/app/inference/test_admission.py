import contextlib

import pytest

from app.errors import QueueFull
from app.inference.admission import BUSY_S, IDLE_S, LEAST, Admission


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Images that are answered in turn, `rate` of them a second, in requests of one."""

    def __init__(self, admission: Admission, clock: Clock, rate: float) -> None:
        self.admission = admission
        self.clock = clock
        self.rate = rate
        self.waiting: list[contextlib.ExitStack] = []
        self.since: list[float] = []
        self.seconds: list[float] = []  # of each answered request

    def ask(self, requests: int) -> int:
        """Sends requests, all at once; returns how many are admitted."""
        before = len(self.waiting)
        for _ in range(requests):
            held = contextlib.ExitStack()
            with contextlib.suppress(QueueFull):
                held.enter_context(self.admission.admit(1))
                self.waiting.append(held)
                self.since.append(self.clock.now)
        return len(self.waiting) - before

    def answer(self, images: int, *, offered: int = 0) -> None:
        """Answers images, while for each of them so many new ones are asked for."""
        for _ in range(images):
            self.clock.now += 1 / self.rate
            self.waiting.pop(0).close()
            self.seconds.append(self.clock.now - self.since.pop(0))
            self.ask(offered)


def test_bounded_in_images() -> None:
    admission = Admission(10)
    with admission.admit(6), admission.admit(4):
        assert admission.depth == 10
        with pytest.raises(QueueFull, match="holds 10 of 10 images, there is no room for 1 more"):
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


@pytest.mark.parametrize("expected", [0.0, 5.0, 20.0, 60.0])
def test_three_times_too_much_waits_no_longer_than_the_limit(expected: float) -> None:
    """Whatever the load of the version has said, the rate is soon that of the model as it runs now."""
    clock = Clock()
    admission = Admission(1000, clock, seconds=2.0, expected=lambda: expected)
    model = Model(admission, clock, rate=20.0)
    model.ask(60)
    model.answer(200, offered=3)
    model.seconds.clear()
    model.answer(400, offered=3)
    assert admission.rate() == pytest.approx(20, rel=0.01)
    assert 1.9 < max(model.seconds) < 2.2
    with pytest.raises(QueueFull, match=r"holds 4\d images, which take 2\.\d s; at most 2 s may wait") as caught:
        admission.check()
    assert caught.value.headers == {"Retry-After": "3"}
    model.rate = 5.0  # something else takes the cores
    model.answer(60, offered=3)
    model.seconds.clear()
    model.answer(40, offered=3)
    assert max(model.seconds) < 2.5


def test_a_burst_after_an_idle_time_is_not_judged_by_what_was_before_it() -> None:
    clock = Clock()
    admission = Admission(1000, clock, seconds=2.0, expected=lambda: 20.0)
    model = Model(admission, clock, rate=2.0)  # beside a training
    model.ask(20)
    model.answer(20, offered=1)
    assert admission.rate() < 3
    model.answer(len(model.waiting))
    clock.now += IDLE_S + 1
    assert model.ask(100) == 41


def test_what_the_clients_ask_for_is_no_rate_of_the_model() -> None:
    clock = Clock()
    admission = Admission(1000, clock, seconds=2.0, expected=lambda: 200.0)
    model = Model(admission, clock, rate=10.0)
    model.ask(2)
    model.answer(50, offered=1)  # two clients, each of which waits for its answer
    assert BUSY_S * 200 > 2
    assert admission.rate() == 200


def test_a_large_request_is_admitted_when_nothing_waits() -> None:
    admission = Admission(100, seconds=2.0, deadline=5.0, expected=lambda: 1.0)
    with admission.admit(64), pytest.raises(QueueFull, match=r"which take 64\.0 s"):
        admission.check()


def test_what_cannot_be_answered_by_its_deadline_is_refused() -> None:
    admission = Admission(1000, seconds=2.0, deadline=5.0, expected=lambda: 10.0)
    with admission.admit(10):
        with pytest.raises(QueueFull, match="with 41 more they would take more than 5 s"), admission.admit(41):
            pass
        with admission.admit(40):
            pass


def test_a_slow_model_still_has_a_few_that_wait_and_is_measured() -> None:
    clock = Clock()
    admission = Admission(1000, clock, seconds=2.0, expected=lambda: 0.01)
    model = Model(admission, clock, rate=0.5)
    assert model.ask(10) == LEAST + 1
    model.answer(10, offered=1)
    assert admission.rate() == pytest.approx(0.5, rel=0.01)


def test_places_that_are_given_up_do_not_count_as_answered() -> None:
    clock = Clock()
    admission = Admission(1000, clock, seconds=2.0, expected=lambda: 10.0)
    model = Model(admission, clock, rate=10.0)
    model.ask(20)
    model.answer(12, offered=1)
    for _ in range(200):  # clients that leave
        clock.now += 0.001
        with contextlib.suppress(ZeroDivisionError), admission.admit(1):
            _ = 1 / 0
    model.answer(12, offered=1)
    assert admission.rate() < 12


def test_retry_after_is_the_queue_over_the_rate() -> None:
    admission = Admission(100, expected=lambda: 10.0)
    with admission.admit(80), pytest.raises(QueueFull) as caught, admission.admit(30):
        pass
    assert caught.value.headers == {"Retry-After": "8"}


def test_retry_after_before_anything_is_known() -> None:
    admission = Admission(5)
    with admission.admit(5):
        assert admission.retry_after() == 1


def test_each_change_is_shown() -> None:
    shown: list[int] = []
    admission = Admission(10, show=shown.append)
    with admission.admit(2), admission.admit(3):
        pass
    assert shown == [2, 5, 2, 0]
