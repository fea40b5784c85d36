"""Intervals, against the figures of SciPy."""

import pytest
from scipy.stats import binomtest

from training.contract.intervals import Proportion


@pytest.mark.parametrize(("count", "images"), [(0, 1), (1, 1), (17, 27), (21, 27), (0, 269), (268, 269), (9000, 10000)])
def test_the_interval_is_wilsons(count: int, images: int) -> None:
    expected = binomtest(count, images).proportion_ci(0.95, method="wilson")
    assert Proportion(count, images).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    assert Proportion(0, 0).interval == (0, 1)


def test_it_reads_as_a_share_with_its_interval() -> None:
    assert str(Proportion.of(0.62963, 27)) == "0.6296 (95 %: 0.44 to 0.78)"
