"""Decides how often a training writes checkpoints and histograms: each takes seconds in which nothing is trained."""

import time

SHARE = 0.02  # of a training's time, at most, for checkpoints, and as much for histograms


def next_due(begun: float) -> float:
    """Returns when work that ran from `begun` until now may run again, as `time.monotonic` counts, in seconds."""
    ended = time.monotonic()
    return ended + (ended - begun) * (1 / SHARE - 1)
