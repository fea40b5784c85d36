"""How many pixels the tiles of a HEIF or an AVIF have: they may be many times the picture that they show.

21 kB with 400 tiles of 2000 x 2000 for a picture of 64 x 64 took 23 s.
"""

import contextlib
import functools
import struct
from collections.abc import Iterator

from training.images.parts import bounded

DERIVED = b"dimg"  # kind of a reference to the images that an image is made of
DEPTH = 4  # images of images. A tile is one of them
MANY_BITS = 1  # flag of ipma: the numbers of properties have two bytes

Box = tuple[int, int]  # begin and end of a box's content


def tile_pixels(data: bytes) -> int:
    """Returns the pixels of all coded images that the main image is made of.

    Raises ValueError and struct.error for a file in which they are not found, and TooCostly for too many parts.
    """
    found: list[Box] = []
    with contextlib.suppress(ValueError):  # phones put other things than boxes behind the boxes
        found += (box for kind, box in bounded(_boxes(data, (0, len(data)))) if kind == b"meta")
    begin, end = _single(found, b"meta")
    inside = begin + 4, end
    properties = _only(data, b"iprp", inside)
    areas = _areas(data, properties)
    made_of = _references(data, inside)

    @functools.cache
    def pixels(item: int, depth: int) -> int:
        if item not in made_of:
            return areas[item]
        if depth == DEPTH:
            raise ValueError(f"image {item} of the file is made of images that are made of images")
        return sum(pixels(part, depth + 1) for part in made_of[item])

    begin, _ = _only(data, b"pitm", inside)
    main: int = struct.unpack_from(">I" if data[begin] else ">H", data, begin + 4)[0]
    try:
        return pixels(main, 0)
    except KeyError as error:
        raise ValueError(f"image {error} of the file has no size") from None


def _boxes(data: bytes, inside: Box) -> Iterator[tuple[bytes, Box]]:
    at, end = inside
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if size == 1:
            size, begin = struct.unpack_from(">Q", data, begin)[0], begin + 8
        last = at + size if size else end
        if not begin <= last <= end:
            raise ValueError(f"a box {kind!r} of the file does not end in it")
        yield kind, (begin, last)
        at = last


def _only(data: bytes, kind: bytes, inside: Box) -> Box:
    return _single(_all(data, kind, inside), kind)


def _all(data: bytes, kind: bytes, inside: Box) -> list[Box]:
    return [box for name, box in bounded(_boxes(data, inside)) if name == kind]


def _single(found: list[Box], kind: bytes) -> Box:
    if len(found) != 1:
        raise ValueError(f"the file should have one box {kind.decode()} at its place, it has {len(found)}")
    return found[0]


def _references(data: bytes, inside: Box) -> dict[int, tuple[int, ...]]:
    """Returns which images an image is made of."""
    found: dict[int, tuple[int, ...]] = {}
    for begin, end in _all(data, b"iref", inside):
        number = "I" if data[begin] else "H"
        for at, _ in _all(data, DERIVED, (begin + 4, end)):
            item, count = struct.unpack_from(f">{number}H", data, at)
            parts = struct.unpack_from(f">{count}{number}", data, at + struct.calcsize(f">{number}H"))
            found[item] = found.get(item, ()) + parts
    return found


def _areas(data: bytes, properties: Box) -> dict[int, int]:
    """Returns the pixels of each image that has a size."""
    sizes = [
        struct.unpack_from(">II", data, begin + 4) if kind == b"ispe" else (0, 0)
        for kind, (begin, _) in bounded(_boxes(data, _only(data, b"ipco", properties)))
    ]
    areas: dict[int, int] = {}
    for begin, _ in _all(data, b"ipma", properties):
        for item, numbers in bounded(_associations(data, begin)):
            sides = [sizes[number - 1] for number in numbers if number]
            if area := max((width * height for width, height in sides), default=0):
                areas[item] = max(areas.get(item, 0), area)
    return areas


def _associations(data: bytes, begin: int) -> Iterator[tuple[int, list[int]]]:
    """Yields each image and the numbers of its properties, from 1."""
    flags, count = struct.unpack_from(">II", data, begin)
    item_format = ">IB" if flags >> 24 else ">HB"
    width, mask = (2, 0x7FFF) if flags & MANY_BITS else (1, 0x7F)
    at = begin + 8
    for _ in range(count):
        item, numbers = struct.unpack_from(item_format, data, at)
        at += struct.calcsize(item_format)
        end = at + numbers * width
        yield item, [int.from_bytes(data[place : place + width]) & mask for place in range(at, end, width)]
        at = end
