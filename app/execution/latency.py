"""How long a run takes at each batch size, and which size is worth its latency."""

import time
from collections.abc import Callable, Iterable

LARGEST_BATCH = 128
GROWTH = 1.04  # a doubled batch that gives less than 4 % more images a second only adds latency
RUNS = 10  # timed runs of one size, at most; the fastest counts, since all that disturbs a run makes it slower
SECONDS_PER_SIZE = 0.1
TICK_S = 1e-6  # a run takes at least this: on a virtual machine a thread's clock may stand still in a short run
SECONDS = 1.0  # for all sizes together: a swap should not wait for the curve of a slow model
# by the clock, which goes on while something else has the cores
LONGEST_PER_SIZE_S = 2.0
LONGEST_S = 20.0

Clock = Callable[[], float]


def powers_of_two(limit: int) -> list[int]:
    """Returns 1, 2, 4, ... and the limit itself."""
    return sorted({limit, *(1 << n for n in range(limit.bit_length()) if 1 << n <= limit)})


def measure(
    run: Callable[[int], float], sizes: Iterable[int], to_the_end: bool = False, clock: Clock = time.monotonic
) -> dict[int, float]:
    """Returns the seconds of a run at each batch size, ascending. Each size has run once before it is timed.

    `run` runs one batch of a size and returns its seconds without the wait before it, so a version that is loaded while
    requests come gets the same curve, later. Measuring stops at the first size that does not raise images/s by 4 %, or
    when the next one would exceed the time; `to_the_end` measures all sizes. Beside other work fewer sizes are
    measured.
    """
    curve: dict[int, float] = {}
    spent, begun = 0.0, clock()

    def counted(size: int) -> float:
        nonlocal spent
        seconds = run(size)
        spent += seconds
        return seconds

    for size in sizes:
        if curve and not to_the_end:
            rates = _rates(curve)
            # a first run and a timed one
            forecast = 2 * size / rates[-1]
            grows = len(rates) < 2 or rates[-1] >= GROWTH * rates[-2]
            if not grows or spent + forecast > SECONDS or clock() - begun > LONGEST_S:
                break
        curve[size] = fastest_run(counted, size, clock=clock)
    return curve


def smallest_worthwhile(curve: dict[int, float]) -> int:
    """Returns the smallest batch within 4 % of the best images/s."""
    best = max(_rates(curve))
    return next(size for size, rate in zip(curve, _rates(curve), strict=True) if rate * GROWTH >= best)


def fastest_run(run: Callable[[int], float], size: int, runs: int = RUNS, clock: Clock = time.monotonic) -> float:
    """Returns the seconds of the fastest of some runs of one size, after one run that does not count."""
    run(size)  # allocates, and picks algorithms for the shape
    spent, fastest, begun = 0.0, float("inf"), clock()
    for _ in range(runs):
        seconds = max(run(size), TICK_S)
        spent, fastest = spent + seconds, min(fastest, seconds)
        if spent > SECONDS_PER_SIZE or clock() - begun > LONGEST_PER_SIZE_S:
            break
    return fastest


def _rates(curve: dict[int, float]) -> list[float]:
    return [size / seconds for size, seconds in curve.items()]
