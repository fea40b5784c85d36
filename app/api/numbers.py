"""Numbers that arrive as text."""


def whole_number(text: str) -> int | None:
    """Returns the number that up to nine ASCII digits name; None for any other text, which `int` would take in part."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
