"""Two classifiers on the same images: what is chance and what is not."""

import numpy as np
import pytest
from scipy.stats import binomtest

from training.contract.verdict import Comparison
from training.exported.comparison import compare_answers


def compared(candidate_only: int, live_only: int, images: int = 27, significance: float = 0.05) -> Comparison:
    candidate, live = np.ones(images, bool), np.ones(images, bool)
    live[:candidate_only] = False
    candidate[candidate_only : candidate_only + live_only] = False
    return compare_answers(candidate, live, significance)


@pytest.mark.parametrize(
    ("candidate_only", "live_only", "outcome"),
    [
        (0, 0, "indistinguishable"),
        (0, 1, "indistinguishable"),
        (0, 5, "indistinguishable"),  # p = 0.0625
        (0, 6, "worse"),
        (6, 0, "better"),
        (10, 12, "indistinguishable"),
        (3, 14, "worse"),
    ],
)
def test_a_difference_is_told_from_chance(candidate_only: int, live_only: int, outcome: str) -> None:
    comparison = compared(candidate_only, live_only)
    assert comparison.outcome == outcome
    differ = candidate_only + live_only
    expected = binomtest(candidate_only, differ).pvalue if differ else 1
    assert comparison.p_value == pytest.approx(expected)
    assert (comparison.candidate_only, comparison.live_only, comparison.images) == (candidate_only, live_only, 27)


def test_how_many_images_would_tell() -> None:
    """Six that differ, all one way, tell: with 1 of 27 that is 5 times as many images more."""
    assert compared(0, 1).images_to_tell == 5 * 27
    assert compared(0, 6).images_to_tell is None  # told already
    assert compared(0, 0).images_to_tell is None
    assert compared(4, 4).images_to_tell is None  # no number would
    assert "about 135 more test images would tell" in compared(0, 1).render()


def test_the_significance_is_a_setting() -> None:
    assert compared(0, 5, significance=0.1).outcome == "worse"
    assert compared(0, 6, significance=0.01).outcome == "indistinguishable"
