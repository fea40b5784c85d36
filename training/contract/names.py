"""The rule for names of datasets and models: a name is a folder, a part of a URL and a word on the command line."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from training.system.clutter import is_clutter

MAX_CHARACTERS = 64
MAX_BYTES = 255  # longest name that file systems take
SEPARATORS = frozenset("/\\@:")  # they separate parts of a path, or a name from its revision
RESERVED = "CURRENT"
RULE = (
    f"a name should have 1 to {MAX_CHARACTERS} characters of any script, none of them / \\ @ : or a control character; "
    f"it should not begin with . or -, begin or end with a blank, or be {RESERVED} or a system's own folder"
)


def usable_name(text: str) -> str:
    """Returns the name in NFC, the form that is kept. Raises PydanticCustomError, a ValueError, with the rule."""
    name = unicodedata.normalize("NFC", text)
    if not (
        0 < len(name) <= MAX_CHARACTERS
        and all(_is_printed(char) for char in name)
        and len(name.encode()) <= MAX_BYTES
        and name == name.strip()
        and not name.startswith("-")
        and name != RESERVED
        and not is_clutter(name)
    ):
        raise PydanticCustomError("name", "{rule}", {"rule": RULE})
    return name


def _is_printed(char: str) -> bool:
    """Whether a character can be seen: no separator, no control character (category C), no line end (Zl, Zp)."""
    category = unicodedata.category(char)
    return char not in SEPARATORS and not category.startswith("C") and category not in ("Zl", "Zp")


Name = Annotated[
    str,
    AfterValidator(usable_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": r"^[^/\\@:]+$"}),
]
