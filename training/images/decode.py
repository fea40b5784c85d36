"""Encoded bytes to the network's input: the one decode and resize, for training and serving alike.

All that happens to pixels before the graph happens here, so training and serving cannot drift apart.
"""

import errno
import io
import os
import stat
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from training.contract.manifest import Preprocessing
from training.environment import Limits
from training.errors import TrainingError
from training.images.formats import FORMATS, name_of, unread
from training.images.jpeg_end import END, has_all_pixels
from training.images.metadata import orientation_of, without_metadata
from training.images.resize import Picture, resized, shortest_side

MAX_FILE_BYTES = 512 * 1024**2  # a file is held in memory while it is decoded
# Pillow warns of tags that it ignores, and of images over its limit, which `decode` refuses before Pillow would
warnings.filterwarnings("ignore", module=r"PIL\.")

OTHER_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # modes of premultiplied alpha, and their plain ones
SCALED = {"PNG", "PPM"}  # formats whose 16-bit samples Pillow holds in a 32-bit mode


class ImageError(TrainingError):
    """Bytes that are no usable image.

    `code` is stable: empty_file, file_too_large, not_an_image, image_too_large, corrupt_image, unsupported_pixels.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode(source: bytes | Path, preprocessing: Preprocessing, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Decodes one image to uint8 [height, width, 3] RGB of the size that `preprocessing` names.

    EXIF orientation is applied, transparent pixels are laid on white, 16-bit samples are cut to 8 bits, an animation
    gives its first frame. JPEGs are scaled while they are decoded (libjpeg's DCT scaling: 16.6 ms in place of 142 ms
    for a photo of 12 megapixels). Thread-safe: Pillow releases the GIL in decode and resize. `max_pixels` is
    RESNEXT_MAX_PIXELS by default. Raises ImageError for the image, OSError for its file.
    """
    if max_pixels is None:
        max_pixels = Limits().max_pixels
    data = read_file(source) if isinstance(source, Path) else source
    if not data:
        raise ImageError("empty_file", "the file is empty")
    try:
        return _pixels(data, preprocessing, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(" exceeds")[0]
        raise ImageError("image_too_large", f"the limit is {max_pixels} pixels: {size}") from None
    # decoders raise anything on hostile bytes: OSError, SyntaxError, struct.error, RecursionError, MemoryError ...
    except Exception as error:
        image = f"{name} image" if (name := name_of(data)) else "image"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError("corrupt_image", f"the {image} cannot be decoded: {reason}") from error


def read_file(path: Path) -> bytes:
    """Returns the bytes of a regular file, also behind a link.

    Other kinds are refused: a pipe may never end, and reading a device may do something. Raises ImageError when the
    file is too large, OSError when it is of another kind or cannot be read.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        raise FileNotFoundError(
            errno.ENOENT, f"it is a link to {os.readlink(path)}, which is not there", str(path)
        ) from None
    if not stat.S_ISREG(found.st_mode):
        link, kind = "a link to " * path.is_symlink(), OTHER_KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it should be a file, it is {link}{kind}", str(path))
    if found.st_size > MAX_FILE_BYTES:
        raise ImageError("file_too_large", f"the limit is {MAX_FILE_BYTES} bytes, the file has {found.st_size}")
    return path.read_bytes()


def _pixels(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes, turns and resizes an image. Raises whatever a decoder raises."""
    plain, orientation = without_metadata(data)
    picture = _load(plain, shortest_side(preprocessing), max_pixels)
    with picture.image as image:
        if orientation == 1:  # Pillow gives an AVIF's own turn as EXIF
            orientation = orientation_of(image.info.get("exif") or b"")
        rgb = replace(picture, image=_to_rgb(image))
        return np.asarray(resized(rgb.upright(orientation), preprocessing))


def _load(data: bytes, shortest: int, max_pixels: int) -> Picture:
    """Returns a decoded image. The sides of a large JPEG are divided, but none to fewer than `shortest` pixels."""
    picture = _open(data, shortest, max_pixels)
    try:
        picture.image.load()
    except OSError:
        # with an end marker libjpeg fills in missing pixels; OpenJPEG does not
        kind = picture.image.format
        if kind != "JPEG2000" and not (kind == "JPEG" and has_all_pixels(data)):
            raise
        picture = _open(data + END, shortest, max_pixels)
        picture.image.load()
    _check_size(picture.image, max_pixels)  # the header of an inner image may have given a smaller size
    return picture if picture.factor > 1 else Picture(picture.image, picture.image.size)


def _open(data: bytes, shortest: int, max_pixels: int) -> Picture:
    # Pillow's own limit is a global; its decoders check it for an image inside another too: it is never below ours
    if max_pixels > (Image.MAX_IMAGE_PIXELS or max_pixels):
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not_an_image", unread(data)) from None
    _check_size(image, max_pixels)
    size = image.size
    divided = image.draft("RGB", (shortest, shortest))
    return Picture(image, size, factor=size[0] / divided[1][2] if divided else 1)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            "image_too_large",
            f"the limit is {max_pixels} pixels, the image has {image.width} x {image.height}",
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:  # a PNG may declare one color transparent
        return image
    if image.mode == "F" or (image.mode == "I" and image.format not in SCALED):
        kind = "32-bit float" if image.mode == "F" else "32-bit and signed integer"
        raise ImageError("unsupported_pixels", f"{kind} pixels have no agreed range; convert to 8 or 16 bits, unsigned")
    if image.mode.startswith("I"):  # 16-bit samples, stored in 16 or 32 bits
        image = Image.fromarray(np.clip(np.asarray(image) // _shades(image), 0, 255).astype(np.uint8))
    try:
        if image.has_transparency_data:
            image = image.convert(STRAIGHT.get(image.mode, image.mode)).convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError("unsupported_pixels", f"pixels of mode {image.mode} do not become RGB: {error}") from None


def _shades(image: Image.Image) -> int:
    """Returns how many 16-bit values become one 8-bit value; a TIFF may use only 12 of the 16 bits."""
    bits = image.tag_v2.get(BITSPERSAMPLE) if isinstance(image, TiffImageFile) else None
    return 16 if bits == (12,) else 256
