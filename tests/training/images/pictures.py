"""Pictures to decode: drawn here, or kept in `data/`."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.contract.manifest import Preprocessing

SQUARE = Preprocessing(height=32, width=32)
# made by pillow-heif 1.8, whose wheel has an encoder: `quadrants(64).save("upright.heic", quality=90)`; turned.heic is
# `quadrants(64).transpose(Image.Transpose.ROTATE_90)` with orientation 6, written as a turn of HEIF's and as EXIF
DATA = Path(__file__).parent / "data"


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # Any: Pillow's options
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    """Draws smooth shades with some noise, like a camera's."""
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    shades = np.stack([x, y, (np.sin(9 * x) * np.cos(7 * y) + 1) / 2], axis=-1) * 230
    noise = np.random.default_rng(0).normal(0, 6, shades.shape)
    return Image.fromarray(np.clip(shades + noise, 0, 255).astype(np.uint8))


def quadrants(size: int) -> Image.Image:
    """Draws red and green above blue and white: each rotation or reflection gives another picture."""
    image = Image.new("RGB", (size, size), "white")
    half = size // 2
    image.paste("red", (0, 0, half, half))
    image.paste("lime", (half, 0, size, half))
    image.paste("blue", (0, half, half, size))
    return image


def tiff(
    samples: NDArray[np.generic], *, bits: int = 8, channels: int = 1, alpha: int = 0, signed: bool = False
) -> bytes:
    """Returns an uncompressed 32 x 32 file, gray or RGB, with samples of kinds that Pillow cannot write."""
    tags = {256: 32, 257: 32, 258: bits, 259: 1, 262: 2 if channels > 2 else 1, 277: channels, 278: 32}
    tags |= {279: samples.nbytes, 339: 2 if signed else 1} | ({338: alpha} if alpha else {})
    begin = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[273] = begin + 2 * channels
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    if channels > 1:  # as many numbers of bits as channels: two fit into the entry
        value = struct.pack("<HH", bits, bits) if channels == 2 else struct.pack("<I", begin)
        entries[2] = struct.pack("<HHI", 258, 3, channels) + value
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<H", bits) * channels + samples.tobytes()
