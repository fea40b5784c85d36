import pytest

from training.contract.labels import unseen_in


@pytest.mark.parametrize(
    "label",
    [
        *("cat", "two words", "été", "nai\u0308ve", "3", "猫", "가나다", "नमस्ते", "❤️", "a_b-c.d (e), f'g", "\U000323b0"),
        *("क्\u200dष", "می\u200cخواهم", "👩\u200d🔬"),  # joined
    ],
)
def test_what_people_call_their_classes(label: str) -> None:
    assert unseen_in(label) is None


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("a\u202egnp.exe", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("a\u2066b\u2069", "U+2066 LEFT-TO-RIGHT ISOLATE"),
        ("cat\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\ufeffcat", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("c\u200dat", "U+200D ZERO WIDTH JOINER"),
        ("\u200c", "U+200C ZERO WIDTH NON-JOINER"),
        ("co\u00adop", "U+00AD SOFT HYPHEN"),
        ("\u3164", "U+3164 HANGUL FILLER"),
        ("\u2800", "U+2800 BRAILLE PATTERN BLANK"),
        ("a\nb", "U+000A"),
        ("a\u2028b", "U+2028 LINE SEPARATOR"),
        ("a\x85b", "U+0085"),
        ("a\x1b[31m", "U+001B"),
        ("a\x00", "U+0000"),
        ("a\U000e0041", "U+E0041 TAG LATIN CAPITAL LETTER A"),
    ],
)
def test_what_nobody_sees_is_named(label: str, named: str) -> None:
    assert unseen_in(label) == named


def test_every_line_end_is_one() -> None:
    """labels.txt has one label a line, and Python, Triton's readers and editors split lines at different characters."""
    for char in map(chr, range(0x110000)):
        if len(f"a{char}b".splitlines()) > 1:
            assert unseen_in(f"a{char}b"), hex(ord(char))
