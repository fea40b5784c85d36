"""Pictures in every format that can be written here, changed at random, and legal ones made to cost."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.app.network import encoded, random_images

SAVED: dict[str, list[tuple[str, dict[str, Any]]]] = {  # by Pillow's format: modes and options, which are of many types
    "JPEG": [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"restart_marker_blocks": 2}),
    ],
    "PNG": [("RGB", {}), ("RGBA", {}), ("P", {}), ("L", {}), ("1", {}), ("LA", {}), ("I;16", {})],
    "GIF": [("P", {}), ("P", {"save_all": True})],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"save_all": True})],
    "TIFF": [("RGB", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    + [("1", {"compression": "group4"}), ("CMYK", {}), ("F", {}), ("LAB", {}), ("RGB", {"save_all": True})],
    "BMP": [("RGB", {}), ("P", {}), ("1", {})],
    "DIB": [("RGB", {})],
    "ICO": [("RGBA", {"sizes": [(16, 16), (32, 32)]}), ("RGBA", {"sizes": [(32, 32)], "bitmap_format": "bmp"})],
    "ICNS": [("RGBA", {})],
    "PPM": [("RGB", {}), ("L", {}), ("1", {})],
    "AVIF": [("RGB", {"quality": 50}), ("RGB", {"save_all": True})],
    "JPEG2000": [("RGB", {}), ("RGB", {"no_jp2": True, "irreversible": True})],
    "TGA": [("RGB", {"compression": "tga_rle"})],
    "PCX": [("RGB", {})],
    "SGI": [("RGB", {})],
    "IM": [("RGB", {})],
    "XBM": [("1", {})],
    "MSP": [("1", {})],
    "SPIDER": [("F", {})],
    "DDS": [("RGBA", {}), ("RGBA", {"pixel_format": "DXT5"})],
    "BLP": [("P", {})],
    "QOI": [("RGB", {})],
    "MPO": [("RGB", {"save_all": True})],
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Returns a small picture in each format, mode and kind of compression that this Pillow writes."""
    y, x = np.mgrid[0:72, 0:96]
    noise = np.random.default_rng(0).integers(0, 40, (72, 96, 3))
    whole = Image.fromarray(((np.stack([2 * x, 3 * y, x + y], -1) % 216) + noise).astype(np.uint8))
    return [
        data
        for format, kinds in SAVED.items()
        for mode, options in kinds
        if (data := _saved(whole, format, mode, options))
    ]


def _saved(whole: Image.Image, format: str, mode: str, options: dict[str, Any]) -> bytes | None:
    sixteen = Image.fromarray(np.asarray(whole.convert("L"), np.uint16) * 257)
    image = sixteen if mode == "I;16" else whole.convert(mode)
    more = {"append_images": [image.rotate(90), image.rotate(180)]} if "save_all" in options else {}
    file = io.BytesIO()
    try:
        image.resize((128, 128) if format == "ICNS" else image.size).save(file, format, **options, **more)
    except (OSError, KeyError, ValueError):  # this build cannot write it
        return None
    return file.getvalue()


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yields `count` pictures, each with one to three changes."""
    dice, originals = random.Random(seed), seeds()
    for _ in range(count):
        data = bytearray(dice.choice(originals))
        for _ in range(dice.randint(1, 3)):
            dice.choice(CHANGES)(data, dice, originals)
        yield bytes(data)


def _flip(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    for _bit in range(dice.randint(1, 16) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _fill(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start, length = dice.randrange(len(data) + 1), dice.randint(1, 64)
    data[start : start + length] = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))


def _cut(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _repeat(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start = dice.randrange(len(data) + 1)
    part = data[start : start + dice.randint(1, 400)]
    data[start:start] = part * dice.randint(1, 50)


def _drop(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start = dice.randrange(len(data) + 1)
    del data[start : start + dice.randint(1, 64)]


def _splice(data: bytearray, dice: random.Random, originals: list[bytes]) -> None:
    other = dice.choice(originals)
    data[dice.randrange(len(data) + 1) :] = other[dice.randrange(len(other)) :]


def _number(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    value, form = dice.choice(EXTREMES), dice.choice((">H", "<H", ">I", "<I"))
    packed = struct.pack(form, value & (0xFFFF if "H" in form else 0xFFFFFFFF))
    start = dice.randrange(len(data) + 1)
    data[start : start + len(packed)] = packed


CHANGES: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    _flip, _fill, _cut, _repeat, _drop, _splice, _number,
)  # fmt: skip


def costly() -> dict[str, bytes]:
    """Returns files of at most a few MB that would take gigabytes or minutes, by name."""
    small, zeros = encoded(random_images(1)[0]), zlib.compress(bytes(200 * 1024**2), 9)
    made = {
        f"PNG of {side} x {side}, {name}": _flat_png(side, side, color, bits)
        for side in (7000, 9459, 13_000)
        for name, color, bits in (("RGB", 2, 8), ("RGBA", 6, 8), ("RGBA of 16 bits", 6, 16), ("gray of 16 bits", 0, 16))
    }
    made |= {
        "PNG of 2^31 x 2^31": _png(2**31 - 1, 2**31 - 1, 2, 8, b""),
        "PNG of one row of 40 million": _flat_png(40_000_000, 1, 0, 8),
        "PNG with 200 MB of text": _with_chunk(small, b"zTXt", b"a\0\0" + zeros),
        "PNG with a color profile of 200 MB": _with_chunk(small, b"iCCP", b"a\0\0" + zeros),
        "icon around a PNG of 13000 x 13000": _icon(_flat_png(13_000, 13_000, 6, 8)),
        "JPEG of 9000 x 9000 with 1,000 empty scans": _scans(9000, 9000, 1000),
        "JPEG of 9000 x 9000 with 90 empty scans": _scans(9000, 9000, 90),
        "JPEG of 2000 x 2000 with 10,000 empty scans": _scans(2000, 2000, 10_000),
        "plain PPM of 20 MB": b"P3 2700 2700 255\n" + b"1 " * (10 * 1024**2),
        "QOI of 20 MB": b"qoif" + struct.pack(">IIBB", 4500, 4500, 3, 0) + b"\x55" * (20 * 1024**2),
        "BMP with runs, 20 MB": _bmp_runs(4500, 4500, 10 * 1024**2),
        "GIF of 9459 x 9459": b"GIF89a" + struct.pack("<HHBBB", 9459, 9459, 0x80, 0, 0) + bytes(6)
        + b"," + struct.pack("<HHHHB", 0, 0, 9459, 9459, 0) + b"\x02\x02\x44\x01\x00;",
        "XPM of 100,000 colors": b'/* XPM */\nstatic char *x[] = {\n"16 1 100000 4",\n' + b'"0 c #f00",\n' * 100_000,
    }  # fmt: skip
    return made


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, color: int, bits: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _flat_png(width: int, height: int, color: int, bits: int) -> bytes:
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[color] * bits // 8)
    packer = zlib.compressobj(9)
    return _png(width, height, color, bits, b"".join(packer.compress(row) for _ in range(height)) + packer.flush())


def _with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + _chunk(kind, data) + png[33:]  # behind the header


def _icon(png: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


def _scans(width: int, height: int, count: int) -> bytes:
    """Returns a progressive JPEG whose scans hold nothing: each is a pass over all blocks."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    head = bytearray(data[: data.index(b"\xff\xda")])
    place = head.index(b"\xff\xc2") + 5
    head[place : place + 4] = struct.pack(">HH", height, width)
    first, more = (b"\xff\xda\x00\x08\x01\x01\x00\x00\x00" + last + b"\x00" for last in (b"\x01", b"\x10"))
    return bytes(head) + first + more * count + b"\xff\xd9"


def _bmp_runs(width: int, height: int, runs: int) -> bytes:
    body = b"\x01\x05" * runs + b"\0\1"
    header = struct.pack("<IIIHHIIIIII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(1024) + body
