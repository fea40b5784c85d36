import threading

import pytest
from PIL import Image

from tests.process import until
from tests.training.images.pictures import SQUARE, encoded
from training.environment import MAX_PIXELS
from training.images.budget import SMALL, Budget
from training.images.decode import BUDGET, MOST_MEMORY, ImageError, decode

LIMIT = 4 * SMALL
LARGE_IMAGE = encoded(Image.new("L", (SMALL // 4 // 1_000 + 1, 1_000)))


class Holder:
    """A thread that holds an amount until `end`."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self.holds, self._release = threading.Event(), threading.Event()

        def hold() -> None:
            with budget.hold(amount, LIMIT):
                self.holds.set()
                self._release.wait(30)

        waiting = budget.waiting
        self._thread = threading.Thread(target=hold, daemon=True)
        self._thread.start()
        until(lambda: self.holds.is_set() or budget.waiting > waiting)

    def end(self) -> None:
        self._release.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_no_more_than_the_limit_is_held_at_one_time() -> None:
    budget = Budget()
    holders = [Holder(budget, 2 * SMALL) for _ in range(4)]
    assert [holder.holds.is_set() for holder in holders] == [True, True, False, False]
    holders[1].end()
    assert holders[2].holds.wait(30)
    assert not holders[3].holds.is_set()
    for holder in holders:
        holder.end()


def test_a_large_one_has_its_turn_before_those_that_came_later() -> None:
    budget = Budget()
    first, large, later = (Holder(budget, amount) for amount in (SMALL, LIMIT, SMALL))
    assert [holder.holds.is_set() for holder in (first, large, later)] == [True, False, False]
    first.end()
    assert large.holds.wait(30)
    assert not later.holds.is_set()
    large.end()
    later.end()


def test_more_than_the_limit_is_held_alone() -> None:
    budget = Budget()
    huge, other = (Holder(budget, amount) for amount in (10 * LIMIT, SMALL))
    assert (huge.holds.is_set(), other.holds.is_set()) == (True, False)
    huge.end()
    other.end()


def test_a_small_one_never_waits() -> None:
    budget = Budget()
    huge, small = (Holder(budget, amount) for amount in (LIMIT, SMALL - 1))
    assert small.holds.is_set()
    small.end()
    huge.end()


def test_an_error_leaves_nothing_taken() -> None:
    budget = Budget()
    for _ in range(3):
        with pytest.raises(KeyError), budget.hold(LIMIT, LIMIT):
            raise KeyError
    with budget.hold(LIMIT, LIMIT):
        pass


def test_a_large_image_waits_for_memory_and_a_small_one_does_not() -> None:
    with BUDGET.hold(MOST_MEMORY * MAX_PIXELS, MOST_MEMORY * MAX_PIXELS):
        shapes: list[tuple[int, ...]] = []
        large = threading.Thread(target=lambda: shapes.append(decode(LARGE_IMAGE, SQUARE).shape), daemon=True)
        large.start()
        until(lambda: BUDGET.waiting == 1)
        assert decode(encoded(Image.new("L", (64, 64))), SQUARE).shape == (32, 32, 3)
        assert shapes == []
    large.join(30)
    assert shapes == [(32, 32, 3)]


def test_a_damaged_image_gives_its_memory_back() -> None:
    for _ in range(3):
        with pytest.raises(ImageError, match="cannot be decoded"):
            decode(LARGE_IMAGE[: len(LARGE_IMAGE) // 2], SQUARE)
    with BUDGET.hold(MOST_MEMORY * MAX_PIXELS, MOST_MEMORY * MAX_PIXELS):
        assert BUDGET.waiting == 0
