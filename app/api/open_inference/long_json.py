"""Reads long JSON in steps that are each short. A parser holds the interpreter's lock for the length of the document:
in 31 MB there may be ten million numbers, each an object, and meanwhile the event loop answers nobody.
"""

import re
import secrets
from collections.abc import Mapping

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from app.errors import InvalidRequest

SHORT_BYTES = 65_536  # a document up to this size is parsed at once: at worst 20,000 lists, 2 ms
LEAST_BYTES = 4096  # of an array that is read here
STEP_BYTES = 256 * 1024  # read at one time: some 3 ms
MOST_VALUES = 10_000  # of all that is not read here
MOST_LEVELS = 8  # of lists in an array

DIGIT, COMMA, OPEN, CLOSE, SPACE = range(5)
_KINDS = np.full(256, SPACE, np.uint8)
_KINDS[np.frombuffer(b"0123456789", np.uint8)] = DIGIT
_KINDS[[ord(","), ord("["), ord("]")]] = COMMA, OPEN, CLOSE
_FOLLOWS = np.zeros((4, 4), bool)  # which kind may follow which; a digit that follows a digit goes on with its number
_AFTER = {DIGIT: (DIGIT, COMMA, CLOSE), COMMA: (DIGIT, OPEN), OPEN: (DIGIT, OPEN, CLOSE), CLOSE: (COMMA, CLOSE)}
for _kind, _next in _AFTER.items():
    _FOLLOWS[_kind, _next] = True
_of_numbers = re.compile(rb"[0-9,\[\] \t\r\n]*")

Numbers = NDArray[np.uint8]


def read_json(text: bytes) -> tuple[object, Mapping[object, Numbers]]:
    """Parses JSON. In a long document each long array of whole numbers from 0 to 255, flat or nested, becomes a word,
    and the mapping has its numbers, uint8 [n], by that word.

    Raises InvalidRequest for long arrays of anything else, and ValueError for what is no JSON.
    """
    if len(text) <= SHORT_BYTES:
        return pydantic_core.from_json(text), {}
    word = secrets.token_hex(8)  # none that the client could have written
    arrays: dict[object, Numbers] = {}
    rest = []
    at = begin = values = 0
    while (start := text.find(b"[", at)) >= 0:
        values += 1
        end = _end_of_numbers(text, start)
        if end - start < LEAST_BYTES:
            at = max(end, start + 1)
        elif array := _Array.read(text, start, end):
            name = f"{word}{len(arrays)}"
            arrays[name] = array.numbers()
            rest += [text[begin:start], f'"{name}"'.encode()]
            at = begin = array.end
        else:  # something else follows the numbers
            at = end
        _require_few(values)
    rest.append(text[begin:])
    short = b"".join(rest)
    _require_few(short.count(b",") + short.count(b"[") + short.count(b"{"))
    return pydantic_core.from_json(short), arrays


def _require_few(values: int) -> None:
    if values > MOST_VALUES:
        raise InvalidRequest(f"long JSON should have at most {MOST_VALUES} values besides whole numbers from 0 to 255")


def _end_of_numbers(text: bytes, start: int) -> int:
    end = start
    while True:
        match = _of_numbers.match(text, end, end + STEP_BYTES)
        assert match
        if match.end() - end < STEP_BYTES:
            return match.end()
        end = match.end()


class _Array:
    """An array of whole numbers as it is read, step by step. All numbers are in lists of one level and one size."""

    def __init__(self) -> None:
        self.end = 0
        self._parts: list[Numbers] = []
        self._count = 0
        self._depth = 0
        self._last = OPEN  # the kind before the step; before the first, as if in a list already
        self._leaf = 0  # level of the numbers
        self._closed = [0] * (MOST_LEVELS + 1)  # lists that have ended, by their level
        self._size = [0] * (MOST_LEVELS + 1)  # numbers in a list, by its level

    @classmethod
    def read(cls, text: bytes, start: int, end: int) -> "_Array | None":
        """Reads the array that begins at `start`. Returns None if it has not ended by `end`. Raises InvalidRequest."""
        array = cls()
        while start < end:
            step = _step(text, start, min(start + STEP_BYTES, end))
            used = array._take(np.frombuffer(text, np.uint8, step - start, start))
            start += used
            if not array._depth:
                array.end = start
                return array
        return None

    def numbers(self) -> Numbers:
        return np.concatenate(self._parts)

    def _take(self, characters: Numbers) -> int:
        """Reads characters, up to the array's end if that is among them. Returns their number."""
        kinds = _KINDS[characters]
        turns = (kinds == OPEN).astype(np.int32) - (kinds == CLOSE)
        depth = np.cumsum(turns) + self._depth
        ends = np.flatnonzero(depth == 0)
        if ends.size:
            characters, kinds, depth = (part[: ends[0] + 1] for part in (characters, kinds, depth))
        if depth.max() > MOST_LEVELS:
            raise InvalidRequest(f"an array of numbers should have at most {MOST_LEVELS} levels")
        digits = kinds == DIGIT
        begins = digits.copy()
        begins[1:] &= ~digits[:-1]
        self._check_order(kinds, begins)
        self._parts.append(_values(characters, digits, begins))
        self._check_shape(kinds, depth, begins)
        self._depth = int(depth[-1])
        return len(characters)

    def _check_order(self, kinds: Numbers, begins: NDArray[np.bool_]) -> None:
        seen = kinds != SPACE
        kinds, begins = kinds[seen], begins[seen]
        before = np.concatenate(([self._last], kinds[:-1])).astype(np.uint8)
        if not _FOLLOWS[before, kinds].all() or (begins & (before == DIGIT)).any():
            raise ValueError("an array of numbers has a comma, a bracket or a blank in the wrong place")
        self._last = int(kinds[-1]) if kinds.size else self._last

    def _check_shape(self, kinds: Numbers, depth: NDArray[np.int32], begins: NDArray[np.bool_]) -> None:
        """Raises InvalidRequest unless lists of one level have the same size, as far as they have ended."""
        levels = depth[begins]
        self._leaf = self._leaf or int(levels[0]) if levels.size else self._leaf
        regular = bool((levels == self._leaf).all())
        counts = np.cumsum(begins) + self._count
        closing = np.flatnonzero(kinds == CLOSE)
        for level in range(1, MOST_LEVELS + 1):
            ended = counts[closing[depth[closing] == level - 1]]
            if ended.size:
                self._size[level] = self._size[level] if self._closed[level] else int(ended[0])
                lists = np.arange(1, ended.size + 1) + self._closed[level]
                regular &= bool((ended == lists * self._size[level]).all())
                self._closed[level] += ended.size
        self._count = int(counts[-1])
        if not regular:
            raise InvalidRequest("an array of numbers is ragged: lists of one level should have the same size")


def _step(text: bytes, start: int, end: int) -> int:
    """Returns where the step ends, not within a number if that is one of a few digits."""
    cut = end
    while cut > max(start, end - 4) and text[cut - 1 : cut].isdigit():
        cut -= 1
    return cut if cut > start else end


def _values(characters: Numbers, digits: NDArray[np.bool_], begins: NDArray[np.bool_]) -> Numbers:
    """Returns the numbers that begin where `begins` says. Raises InvalidRequest, ValueError."""
    at = np.flatnonzero(begins)
    values = (characters[at] - ord("0")).astype(np.uint16)
    zeros = values == 0
    more = np.zeros(len(digits) + 3, bool)
    more[: len(digits)] = digits
    for place in (1, 2):
        goes_on = more[at + place]
        if place == 1 and (goes_on & zeros).any():
            raise ValueError("a number should not begin with a zero")
        following = characters[np.minimum(at + place, len(characters) - 1)] - ord("0")
        at_once = goes_on if place == 1 else goes_on & more[at + 1]
        values = np.where(at_once, values * 10 + following, values)
    if (more[at + 1] & more[at + 2] & more[at + 3]).any() or (values > 255).any():
        raise InvalidRequest("an array of numbers should have whole numbers from 0 to 255")
    return values.astype(np.uint8)
