"""A decoded image of any mode to RGB, its transparent pixels on white, its 16-bit samples cut to 8 bits."""

from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # modes of premultiplied alpha, and their plain ones
SCALED = {"PNG", "PPM"}  # formats whose 16-bit samples Pillow holds in a 32-bit mode
LARGE = 4_000_000  # pixels: fewer are converted at one time, and exactly
STRIP = 2**18  # pixels that are converted at one time: they stay in a core's cache


class UnsupportedPixels(Exception):
    """Pixels that have no meaning as RGB."""


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Returns an RGB image, its sides divided by `factor` and rounded up: a pixel is the mean of those it stands for.

    A large image is converted in strips, since each step of a conversion makes a copy. Raises UnsupportedPixels.
    """
    if is_rgb(image):
        return image.reduce(factor) if factor > 1 else image
    if image.mode == "F" or (image.mode == "I" and image.format not in SCALED):
        kind = "32-bit float" if image.mode == "F" else "32-bit and signed integer"
        raise UnsupportedPixels(f"{kind} pixels have no agreed range; convert to 8 or 16 bits, unsigned")
    shades = _shades(image)
    try:
        if image.width * image.height <= LARGE:
            return to_rgb(_converted(image, shades), factor)
        return _in_strips(image, factor, lambda strip: _converted(strip, shades))
    except ValueError as error:
        raise UnsupportedPixels(f"pixels of mode {image.mode} do not become RGB: {error}") from None


def is_rgb(image: Image.Image) -> bool:
    """Whether an image needs no conversion. A PNG may declare one color of RGB transparent."""
    return image.mode == "RGB" and "transparency" not in image.info


def _in_strips(image: Image.Image, factor: int, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, STRIP // image.width // factor) * factor
    for top in range(0, image.height, rows):
        strip = convert(image.crop((0, top, image.width, min(top + rows, image.height))))
        result.paste(to_rgb(strip, factor), (0, top // factor))
    return result


def _converted(image: Image.Image, shades: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit samples, stored in 16 or 32 bits
        image = Image.fromarray(np.clip(np.asarray(image) // shades, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert(STRAIGHT.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _shades(image: Image.Image) -> int:
    """Returns how many 16-bit values become one 8-bit value; a TIFF may use only 12 of the 16 bits."""
    bits = image.tag_v2.get(BITSPERSAMPLE) if isinstance(image, TiffImageFile) else None
    return 16 if bits == (12,) else 256
