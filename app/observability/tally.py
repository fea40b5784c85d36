"""Quick counting on the hot path, carried over into prometheus_client's metrics at each scrape."""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Histogram


class Tally:
    """The observations for one child of a histogram since they were last carried over. For one thread at a time.

    An observation takes 0.15 us here. The child itself takes 1 us, for a lock on the sum and one on the bucket, and
    3 us with several processes, since both then lie in a file.
    """

    __slots__ = ("_bounds", "_child", "_counts", "_sum")

    def __init__(self, child: Histogram, bounds: Sequence[float]) -> None:
        self._child = child
        self._bounds = bounds
        self._begin()

    def observe(self, amount: float) -> None:
        """Counts one observation. A bucket includes its upper bound, like the child's."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def carry(self) -> None:
        """Adds all observations to the child and begins again with none."""
        # prometheus_client has no public way to add many observations at once
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._sum)
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
