"""Decides how often a training saves and records, which takes seconds and is no training."""

import time

SHARE = 0.02  # of the time, at most, for each of them


def next_due(begun: float) -> float:
    """Returns the monotonic time from which something that ran from `begun` until now may run again."""
    ended = time.monotonic()
    return ended + (ended - begun) * (1 / SHARE - 1)
