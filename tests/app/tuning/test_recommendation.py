import pytest

from app.tuning.recommendation import Candidate, Comparison, Figures, choose, for_load_alone, percentile

NOW = Candidate("int8", 2, None, 2, auto_batch=2)
OTHER = Candidate("int8", 1, None, 2, auto_batch=1)
THIRD = Candidate("int8", 2, 4, 2, auto_batch=2)


def figures(*rates: float, alone: float = 0.020) -> Figures:
    return Figures(list(rates), [0.1], [alone * 0.5, alone, alone * 9])


def test_changes_are_the_variables_to_set() -> None:
    assert NOW.changes(NOW) == {}
    assert OTHER.changes(NOW) == {"RESNEXT_THREADS": "1"}  # auto of the batch stays auto, though it is another size
    both = {"RESNEXT_MAX_BATCH": "4", "RESNEXT_DECODE_THREADS": "1", "RESNEXT_PRECISION": "fp32"}
    assert Candidate("fp32", 2, 4, 1, auto_batch=1).changes(NOW) == both


def test_comparison_is_round_by_round() -> None:
    """A machine that was half as fast in the second round says nothing about either candidate."""
    comparison = Comparison.of(figures(110, 55, 121), figures(100, 50, 110))
    assert (comparison.rate, comparison.worst_rate, comparison.best_rate) == pytest.approx((1.1, 1.1, 1.1))
    assert comparison.alone == 1


@pytest.mark.parametrize(
    ("new", "pays"),
    [
        (figures(110, 108, 112), True),
        (figures(102, 102, 102), False),  # less than 3 %
        (figures(120, 120, 99), False),  # not in every round
        (figures(110, 110, 110, alone=0.0219), True),
        (figures(150, 150, 150, alone=0.0221), False),  # a lone client waits more than 10 % longer
        (figures(100, 100, 100, alone=0.018), True),  # as many images, and a lone client waits less
        (figures(100, 100, 100, alone=0.019), False),
        (figures(95, 95, 95, alone=0.010), False),  # the price is paid by clients that come in a crowd
    ],
)
def test_what_pays(new: Figures, pays: bool) -> None:
    assert Comparison.of(new, figures(100, 100, 100)).pays is pays


def test_choice_is_the_one_of_most_images_that_pays() -> None:
    old = figures(100, 100, 100)
    assert choose(NOW, {NOW: old, OTHER: figures(110, 110, 110), THIRD: figures(105, 105, 105)}) == OTHER
    assert choose(NOW, {NOW: old, OTHER: figures(101, 101, 101), THIRD: figures(105, 105, 105)}) == THIRD
    assert choose(NOW, {NOW: old, OTHER: figures(101, 101, 101), THIRD: figures(90, 90, 90)}) == NOW
    assert choose(NOW, {NOW: old}) == NOW


def test_more_images_for_a_longer_wait_are_told_apart() -> None:
    measured = {NOW: figures(100, 100, 100), OTHER: figures(120, 120, 120, alone=0.04), THIRD: figures(110, 110, 110)}
    assert choose(NOW, measured) == THIRD
    assert for_load_alone(NOW, measured) == OTHER
    assert for_load_alone(NOW, {NOW: measured[NOW], THIRD: measured[THIRD]}) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (0.01, 1)])
def test_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == expected
