"""The pace of checkpoints and histograms: writing them takes seconds in which nothing is trained."""

import time

SHARE = 0.02  # largest share of the training's time that checkpoints take, and that histograms take


def next_due(begun: float) -> float:
    """Returns when work that ran from `begun` until now may run again, as `time.monotonic` counts, in seconds."""
    ended = time.monotonic()
    return ended + (ended - begun) * (1 / SHARE - 1)
