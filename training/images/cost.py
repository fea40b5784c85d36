"""What it costs to decode an image, as its header tells before any pixel is decoded."""

import math
from typing import NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from training.images.heif_tiles import DERIVED, tile_pixels
from training.images.jpeg_scans import FEW, scans
from training.images.parts import TooCostly

MOST_SCANS = 100
MOST_BANDS = 6  # a file may hold each channel by itself; Pillow reads no more
COEFFICIENT = 2  # bytes for each pixel and component that libjpeg keeps of a JPEG of several scans


class Rate(NamedTuple):
    """What a decoder takes: its time in pixels of the fastest, its memory in bytes, each at the most."""

    pixel: float = 1.0  # pixels a pixel
    byte: float = 0.0  # pixels a byte of the file
    memory: int = 4  # bytes a pixel


# 64 million take 2 s on one core that others use too. HEIF and AVIF are slow where there is much detail: a pixel takes
# as long as a few of a PNG at most, a byte of the file tells how much detail there is
RATES = {
    "AVIF": Rate(0.5, 3, memory=9),
    "HEIF": Rate(0.5, 4, memory=10),
    "WEBP": Rate(memory=16),
    "JPEG2000": Rate(2, 4, memory=18),
}
TILED = {"AVIF", "HEIF"}
LOSSLESS = (b"VP8L", b"ALPH")  # kinds of a WebP's chunks, alpha among them
MOST_TABLES, TABLES_BITS, TABLES_BYTES = 2**16, 20, 5_600
LZMA = Rate(0.5, 1)
IN_PYTHON = Rate(32, memory=8)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises TooCostly for more pixels than `max_pixels`."""
    if size[0] * size[1] > max_pixels:
        raise TooCostly(f"the limit is {max_pixels} pixels, the image has {size[0]} x {size[1]}")


def memory_of(image: Image.Image, size: tuple[int, int], data: bytes, max_pixels: int) -> int:
    """Returns about how many bytes it will take to decode an opened image of these bytes.

    `size` is the image's, undivided by `draft`. Raises TooCostly for one that takes as long as more than `max_pixels`
    of the fastest format.
    """
    check_size(size, max_pixels)
    if isinstance(image, JpegImageFile):
        return _memory_of_jpeg(image, size[0] * size[1], data, max_pixels)
    rate, pixels = _rate(image), _pixels(image, data)
    cost = math.ceil(pixels * rate.pixel + len(data) * rate.byte)
    if cost > max_pixels:
        raise TooCostly(
            f"the limit is {max_pixels} pixels, and {size[0]} x {size[1]} of {image.format} in {len(data)} bytes "
            f"take as long as {cost}"
        )
    return pixels * rate.memory + len(data) + (_code_tables(pixels, data) if image.format == "WEBP" else 0)


def _code_tables(pixels: int, data: bytes) -> int:
    """Returns how many bytes the code tables of a WebP may take: a lossless one may have some for each 4 x 4 pixels.

    A file of 290 kB for a picture of 1020 x 1020 took 362 MB.
    """
    if not any(kind in data for kind in LOSSLESS):
        return 0
    return min(MOST_TABLES, pixels // 16, 8 * len(data) // TABLES_BITS) * TABLES_BYTES


def _memory_of_jpeg(image: JpegImageFile, pixels: int, data: bytes, max_pixels: int) -> int:
    found = scans(image, data)
    most = min(MOST_SCANS, FEW * max_pixels // pixels)
    if found > most:
        raise TooCostly(f"the limit is {most} scans for a JPEG of {pixels} pixels, the image has {found}")
    coefficients = pixels * image.layers * COEFFICIENT if found > 1 else 0
    return image.width * image.height * Rate().memory + coefficients + len(data)


def decoded_in_python(image: Image.Image) -> bool:
    """Whether a decoder in Python is needed for an opened image: it takes a second for some hundred thousand pixels."""
    return any(tile.codec_name in Image.DECODERS for tile in getattr(image, "tile", ()))


def _rate(image: Image.Image) -> Rate:
    if decoded_in_python(image):
        return IN_PYTHON
    if image.info.get("compression") == "lzma":
        return LZMA
    return RATES.get(image.format or "", Rate())


def _pixels(image: Image.Image, data: bytes) -> int:
    """Returns the pixels that are decoded: a file's tiles may be larger than the image, or lie one on another."""
    if image.format in TILED and DERIVED in data:
        return max(image.width * image.height, tile_pixels(data))
    width, height = image.size
    if isinstance(image, TiffImageFile):
        width, height = (
            math.ceil(side / tile) * tile
            for side, tile in zip(image.size, map(image.tag_v2.get, (TILEWIDTH, TILELENGTH), image.size), strict=True)
        )
    extents = [tile.extents for tile in getattr(image, "tile", ()) if tile.extents]
    tiles = sum((right - left) * (lower - upper) for left, upper, right, lower in extents)
    return max(width * height, tiles // MOST_BANDS)
