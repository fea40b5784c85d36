"""Finds out whether a JPEG without an end marker has all of its pixels."""

import hashlib
import io
import random

from PIL import Image

from training.images.metadata import JPEG_SCAN, jpeg_segments

END = b"\xff\xd9"  # end marker of JPEG, and of JPEG 2000
FRAMES = range(0xC0, 0xC3)  # baseline, extended and progressive: the Huffman-coded frames that libjpeg reads
ROWS = 64  # hashed at one time
COEFFICIENTS = 64  # in a block of 8 x 8 pixels


def has_all_pixels(data: bytes) -> bool:
    """Whether a JPEG without an end marker has all of its pixels.

    libjpeg does not report missing pixels: it fills them in. So the image is decoded with two different fillings at its
    end. A missing pixel takes another value from each; if none is missing, libjpeg ignores both fillings. Each has the
    restart markers that libjpeg would look for. Raises what Pillow raises.
    """
    if not _has_all_scans(data):
        return False
    data = data.rstrip(b"\xff")  # a marker that was cut in half
    first, second = (_digest(data + _filling(seed) + END) for seed in (1, 2))
    return first == second


def _digest(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        digest = hashlib.sha256()
        for top in range(0, image.height, ROWS):  # as a whole, the bytes would be a copy of the picture
            digest.update(image.crop((0, top, image.width, top + ROWS)).tobytes())
        return digest.digest()


def _filling(seed: int) -> bytes:
    noise = random.Random(seed)  # noqa: S311  a filling, no secret
    parts = [noise.randbytes(64).replace(b"\xff", b"") for _ in range(9)]
    return b"".join([parts[0], *(bytes([0xFF, 0xD0 + i]) + part for i, part in enumerate(parts[1:]))])


def _has_all_scans(data: bytes) -> bool:
    """Whether there is a scan for every coefficient of every component, down to its last bit."""
    missing: dict[int, set[int]] = {}
    for code, start, end in jpeg_segments(data):
        content = data[start + 4 : end]
        if code in FRAMES:
            missing = {component: set(range(COEFFICIENTS)) for component in content[6::3]}
        if code == JPEG_SCAN:
            components, (first, last, approximation) = content[1:-3:2], content[-3:]
            if not approximation & 15:  # a number of low bits that later scans bring
                for component in components:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())
