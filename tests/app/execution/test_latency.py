import pytest

from app.execution.latency import (
    LONGEST_PER_SIZE_S,
    LONGEST_S,
    SECONDS,
    TICK_S,
    fastest_run,
    measure,
    powers_of_two,
    smallest_worthwhile,
)


class Machine:
    """Takes `fixed + per_image * n` seconds for a run."""

    def __init__(self, fixed: float, per_image: float) -> None:
        self.fixed, self.per_image = fixed, per_image
        self.now = 0.0
        self.ran: list[int] = []

    def run(self, n: int) -> float:
        self.ran.append(n)
        seconds = self.fixed + self.per_image * n
        self.now += seconds
        return seconds


@pytest.mark.parametrize(
    ("fixed", "per_image", "expected"),
    [
        (0.0, 0.050, 1),  # a CPU: a batch buys nothing
        (0.001, 0.0002, 64),  # a GPU: 64 is within 5 % of 128's rate
        (0.010, 0.0, 128),  # runs cost the same at any size: the largest
    ],
)
def test_max_batch_is_the_knee(fixed: float, per_image: float, expected: int) -> None:
    machine = Machine(fixed, per_image)
    curve = measure(machine.run, powers_of_two(128))
    assert smallest_worthwhile(curve) == expected


def test_stops_at_the_first_size_that_does_not_pay() -> None:
    machine = Machine(0, 0.01)
    assert list(measure(machine.run, powers_of_two(128))) == [1, 2]


def test_slow_model_does_not_hold_up_the_start() -> None:
    machine = Machine(0.2, 0.2)
    curve = measure(machine.run, powers_of_two(128))
    assert list(curve) == [1]
    assert machine.now <= SECONDS


def test_to_the_end_measures_each_and_each_is_warm() -> None:
    machine = Machine(0, 0.5)
    assert list(measure(machine.run, [1, 2, 4, 6], to_the_end=True)) == [1, 2, 4, 6]
    assert all(machine.ran.count(n) >= 2 for n in (1, 2, 4, 6))


def test_a_machine_that_is_busy_with_other_things_bounds_the_start() -> None:
    """The runs are short by what they use of the cores, and long by the clock."""
    machine, waited = Machine(0.0, 0.0), [0.0]

    def run(n: int) -> float:
        waited[0] += 1.5
        machine.run(n)
        return 0.01 + 0.001 * n

    curve = measure(run, powers_of_two(128), clock=lambda: waited[0])
    assert list(curve) == [1, 2, 4, 8, 16]
    assert all(machine.ran.count(n) == 3 for n in curve)
    assert waited[0] <= LONGEST_S + LONGEST_PER_SIZE_S + 3


def test_powers_of_two_end_with_the_limit() -> None:
    assert powers_of_two(24) == [1, 2, 4, 8, 16, 24]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(1) == [1]


def test_a_clock_that_does_not_move_is_no_infinite_speed() -> None:
    assert fastest_run(lambda _: 0.0, 1) == TICK_S
