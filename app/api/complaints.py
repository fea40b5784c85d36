"""Says what is wrong with a request: each field as the client wrote it, the rule, and the value that came."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError

GOT_CHARACTERS = 80
MOST_COMPLAINTS = 20

_encoder = json.JSONEncoder(ensure_ascii=False, default=repr)

Item = Mapping[str, Any]  # Any: pydantic's own type of one complaint


class Complaint(NamedTuple):
    """A complaint about one field, as "body.gate.tolerance". `got` is None where the message already has the value."""

    field: str
    message: str
    got: str | None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f", got {self.got}" if self.got else "")


def complaints_of(error: RequestValidationError) -> tuple[list[Complaint], int]:
    """Returns one complaint for each field, up to MOST_COMPLAINTS, and the number of those left out."""
    items = error.errors()
    complaints = [
        _of_json(item, error.body) if item["type"] == "json_invalid" else _of_field(item, error.body)
        for item in items[:MOST_COMPLAINTS]
    ]
    return complaints, len(items) - len(complaints)


def _of_json(item: Item, document: str) -> Complaint:
    at = item["loc"][1]
    line, column = document.count("\n", 0, at) + 1, at - document.rfind("\n", 0, at)
    message = f"should be JSON, but is not at line {line}, column {column}: {item['ctx']['error']}"
    return Complaint("body", message, repr(document[at : at + 20]) if document[at:] else "its end")


def _of_field(item: Item, body: object) -> Complaint:
    place, *path = item["loc"]
    # a rule between fields, whose message names them and their values
    rule = item["type"] == "value_error" and not path
    missing = item["type"] == "missing"
    if place == "body" and body is not None:  # a route's own complaint has no body
        path = _written(path, body, missing=missing)
    # pydantic puts this before the message of a rule of ours
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "model_attributes_type":
        message = "Input should be an object"
    return Complaint(
        _short(_printable(".".join(map(str, [place, *path])))),
        message,
        "nothing" if missing else None if rule else _shown(item.get("input"), as_json=place == "body"),
    )


def _written(path: Sequence[str | int], body: object, *, missing: bool) -> list[str | int]:
    """Returns the steps of a path that exist in the body; pydantic puts the branches of a union between them."""
    written = []
    value: Any = body
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            continue
        written.append(step)
    return [*written, path[-1]] if missing and path else written


def _shown(value: object, *, as_json: bool) -> str:
    return _short(_printable(_begin(value)) if as_json else repr(value))


def _short(text: str) -> str:
    return text if len(text) <= GOT_CHARACTERS else f"{text[:GOT_CHARACTERS]}…"


def _begin(value: object) -> str:
    """Returns the begin of a value as JSON. Several complaints may have the whole body as their value."""
    text = ""
    for part in _encoder.iterencode(value):
        text += part
        if len(text) > GOT_CHARACTERS:
            break
    return text


def _printable(text: str) -> str:
    """Escapes half a character, which JSON can name and no answer can carry."""
    return text.encode(errors="backslashreplace").decode()
