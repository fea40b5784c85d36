"""The rule for labels: all of a label can be seen. It stands in reports, in answers, on pages and in labels.txt."""

import unicodedata

# join what stands before to what follows, as in emoji, and in Persian and Indian names
JOINERS = frozenset("\u200c\u200d")
# letters and marks that are drawn as nothing: Hangul's and Braille's fillers, and two of Khmer
BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
UNSEEN = ("Cc", "Cf", "Zl", "Zp")  # controls, formatting such as the turn from left to right, and line ends


def unseen_in(label: str) -> str | None:
    """Returns the first character of a label that cannot be seen, as `U+202E RIGHT-TO-LEFT OVERRIDE`; None if all can.

    A joiner is one where it has nothing to join: at the beginning, and after a character of ASCII.
    """
    for before, char in zip(f" {label}", label, strict=False):
        if char in JOINERS and not before.isascii():
            continue
        if char in BLANK or unicodedata.category(char) in UNSEEN:
            return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
    return None
