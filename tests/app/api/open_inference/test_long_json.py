"""Long JSON read in steps, beside the whole document parsed at once."""

import json
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest

from app.api.open_inference import long_json
from app.errors import InvalidRequest

BIG = 2 * 1024**2


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every array read in steps of a few characters."""
    monkeypatch.setattr(long_json, "SHORT_BYTES", 0)
    monkeypatch.setattr(long_json, "LEAST_BYTES", 1)
    monkeypatch.setattr(long_json, "STEP_BYTES", 20)


def read(array: str) -> list[int] | None:
    """Returns the numbers that are read here of an array in a document; None where it is refused."""
    try:
        document, arrays = long_json.read_json(f'{{"data": {array}, "more": [1.5]}}'.encode())
    except (InvalidRequest, ValueError):
        return None
    assert isinstance(document, dict)
    assert document["more"] == [1.5]
    data = document["data"]
    return [int(n) for n in arrays[data]] if isinstance(data, str) else None


def expected(array: str) -> list[int] | None:
    try:
        numbers = np.asarray(json.loads(array))
    except ValueError:  # no JSON, or ragged
        return None
    if numbers.dtype.kind not in "iu" and numbers.size:
        return None
    if numbers.size and (numbers.min() < 0 or numbers.max() > 255):
        return None
    flat: list[int] = numbers.ravel().tolist()
    return flat


def nested(random: random.Random, shape: list[int]) -> Any:
    if not shape:
        return random.choice([0, 7, 10, 42, 99, 100, 255])
    return [nested(random, shape[1:]) for _ in range(shape[0])]


@pytest.mark.usefixtures("short_steps")
def test_arrays_are_read_as_a_parser_does() -> None:
    chance = random.Random(0)
    taken = refused = 0
    for _ in range(300):
        shape = [chance.randint(1, 4) for _ in range(chance.randint(1, 5))]
        text = json.dumps(nested(chance, shape), separators=chance.choice([(",", ":"), (", ", ":"), (" ,\n ", ":")]))
        assert read(text) == expected(text) is not None
        at = chance.randrange(1, len(text))
        change = chance.choice(["", "0", "9", ",", "[", "]", " ", "],[", "256", "1 2", "\t"])
        wrong = text[:at] + change + text[at + chance.randint(0, 2) :]
        assert read(wrong) == expected(wrong), wrong
        taken, refused = taken + (expected(wrong) is not None), refused + (expected(wrong) is None)
    assert min(taken, refused) > 30
    assert read("[" * 8 + "1" + "]" * 8) == [1]
    assert read("[" * 9 + "1" + "]" * 9) is None


@pytest.mark.parametrize(
    "data",
    [
        "[" * BIG + "]" * BIG,
        "[" + "[]," * BIG + "[]]",
        "[" + '{"a":1},' * BIG + "1]",
        "[" + "1" * BIG + "]",
        "[" + "1.5," * BIG + "1]",
        "[" + "-1," * BIG + "1]",
        "[" + '"",' * BIG + '""]',
        "[a" * BIG,
        "1" * BIG,
    ],
    ids=["brackets", "lists", "objects", "digits", "floats", "negative", "texts", "starts", "number"],
)
def test_what_would_become_millions_of_objects_is_refused_or_does_not(data: str) -> None:
    body = f'{{"inputs":[{{"data":{data}}}]}}'.encode()
    tracemalloc.start()
    try:
        _, arrays = long_json.read_json(body)
        assert [array.size for array in arrays.values()] == [0]  # the empty lists
    except (InvalidRequest, ValueError):
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 3 * len(body) + 16 * 1024**2


def test_a_short_document_is_parsed_as_it_is() -> None:
    assert long_json.read_json(b'{"data": [1, 2, [3]]}') == ({"data": [1, 2, [3]]}, {})
