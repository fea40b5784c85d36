import math

import pytest

from training.contract.intervals import Proportion
from training.phases.publish_weights import why_unfit


@pytest.mark.parametrize(
    ("right", "images", "kept"),
    [(16, 16, True), (14, 16, True), (13, 16, False), (90, 100, True), (89, 100, False)],
)
def test_int8_has_to_name_the_classes_of_float32(right: int, images: int, kept: bool) -> None:
    why = why_unfit("int8", Proportion(right, images), 0.3, 0.9)
    assert (why is None) is kept


@pytest.mark.parametrize(("difference", "kept"), [(0.05, True), (0.06, False), (math.nan, False)])
def test_fp16_has_to_have_the_probabilities_of_float32(difference: float, kept: bool) -> None:
    why = why_unfit("fp16", Proportion(4, 4), difference, 0.9)
    assert (why is None) is kept
