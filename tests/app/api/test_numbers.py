import pytest

from app.api.numbers import whole_number


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("999999999", 999_999_999)])
def test_digits_are_a_number(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", " 1", "1 ", "1.0", "1_0", "x", "\u0661", "\u00b2", "1000000000", "True"]
)
def test_any_other_text_is_none(text: str) -> None:
    assert whole_number(text) is None
