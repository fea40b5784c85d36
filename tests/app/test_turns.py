import threading
from collections.abc import Callable

from app.turns import Turns
from tests.process import until


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_requests_go_before_a_load_that_waited_longer() -> None:
    turns, order = Turns(), list[str]()

    def take(name: str, for_requests: bool) -> None:
        with turns.turn(for_requests=for_requests):
            order.append(name)

    with turns.turn(for_requests=False):
        load = started(lambda: take("load", False))
        request = started(lambda: take("request", True))
        until(lambda: turns._requests == 1)
        assert not order  # one at a time
    for thread in (load, request):
        thread.join(10)
    assert order == ["request", "load"]


def test_a_turn_ends_with_an_error_in_it() -> None:
    turns = Turns()
    try:
        with turns.turn(for_requests=True):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with turns.turn(for_requests=False):
        pass
