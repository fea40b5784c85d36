"""Encoded bytes to the network's input: the one decode and resize, for training and serving alike.

All that happens to pixels before the graph happens here, so training and serving cannot drift apart.
"""

import contextlib
import errno
import io
import os
import stat
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from training.contract.manifest import Preprocessing
from training.environment import MAX_PIXELS, Limits
from training.errors import TrainingError
from training.images.budget import Budget
from training.images.cost import check_size, memory_of
from training.images.formats import kind_of, name_of, not_named, openers, unread
from training.images.jpeg_end import END, has_all_pixels
from training.images.metadata import UPRIGHT, orientation_of, without_metadata
from training.images.parts import Source, TooCostly
from training.images.resize import REDUCING_GAP, Picture, resized, shortest_side
from training.images.rgb import LARGE, UnsupportedPixels, is_rgb, to_rgb
from training.system.memory import trim_heap

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
JPEG = b"\xff\xd8\xff"
BUDGET = Budget()
MOST_MEMORY = 16  # bytes for each of RESNEXT_MAX_PIXELS: what one image of the costliest format takes, WebP
TRIMMED = 96 * 1024**2  # bytes that a decode has taken, from which on they are given back, in 25 ms
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class ImageError(TrainingError):
    """Bytes that are no usable image.

    `code` is stable: empty_file, file_too_large, not_an_image, image_too_large, corrupt_image, unsupported_pixels.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode(source: bytes | Path, preprocessing: Preprocessing, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Decodes one image to uint8 [height, width, 3] RGB of the size that `preprocessing` names.

    EXIF orientation is applied, transparent pixels are laid on white, 16-bit samples are cut to 8 bits, an animation
    gives its first frame. JPEGs are scaled while they are decoded (libjpeg's DCT scaling: 16.6 ms in place of 142 ms
    for a photo of 12 megapixels). Thread-safe: Pillow releases the GIL in decode and resize. A large image waits until
    others have left it memory. `limits` are the environment's by default. Raises ImageError for the image, OSError for
    its file.
    """
    if limits is None:
        limits = Limits()
    data = read_file(source) if isinstance(source, Path) else source
    if not data:
        raise ImageError("empty_file", "the file is empty")
    try:
        return _pixels(data, preprocessing, limits)
    except ImageError:
        raise
    except TooCostly as error:
        raise ImageError("image_too_large", str(error)) from None
    except UnsupportedPixels as error:
        raise ImageError("unsupported_pixels", str(error)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(" exceeds")[0]
        raise ImageError("image_too_large", f"the limit is {limits.max_pixels} pixels: {size}") from None
    # decoders raise anything on hostile bytes: OSError, SyntaxError, struct.error, RecursionError, MemoryError ...
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold what was decoded, for as long as the error lives
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


def _pixels(data: bytes, preprocessing: Preprocessing, limits: Limits) -> NDArray[np.uint8]:
    """Decodes, turns and resizes an image. Raises whatever a decoder raises."""
    plain, orientation = without_metadata(data)
    try:
        return _resized(plain, orientation, preprocessing, limits)
    except OSError:
        # with an end marker libjpeg fills in missing pixels; OpenJPEG does not
        kind = name_of(data)
        if kind != "JPEG 2000" and not (kind == "JPEG" and _has_all_pixels(plain, limits)):
            raise
    return _resized(plain + END, orientation, preprocessing, limits)


def _resized(data: bytes, orientation: int, preprocessing: Preprocessing, limits: Limits) -> NDArray[np.uint8]:
    shortest = shortest_side(preprocessing)
    picture, memory = _open(data, shortest, limits)
    with _held(memory, limits), contextlib.closing(picture.image):
        picture.image.load()
        check_size(picture.image.size, limits.max_pixels)  # the header of an inner image may have given a smaller size
        if orientation == UPRIGHT:  # Pillow gives an AVIF's own turn as EXIF
            orientation = orientation_of(picture.image.info.get("exif") or b"")
        rgb = _in_rgb(picture, shortest, turned=orientation != UPRIGHT)
        return np.asarray(resized(rgb.upright(orientation), preprocessing))


@contextlib.contextmanager
def _held(memory: int, limits: Limits) -> Iterator[None]:
    """Waits until an image of so many bytes may be decoded, and gives them back to the system in the end."""
    try:
        with BUDGET.hold(memory, MOST_MEMORY * limits.max_pixels):
            yield
    finally:
        if memory > TRIMMED:
            trim_heap()


def _has_all_pixels(data: bytes, limits: Limits) -> bool:
    """Decodes a JPEG twice, undivided: so it may have half of the pixels. Raises TooCostly."""
    half = limits.model_copy(update={"max_pixels": max(1, limits.max_pixels // 2)})
    try:
        _, memory = _open(data, limits.max_pixels, half)  # too long a side to be divided by
    except TooCostly as error:
        raise TooCostly(f"for a JPEG that is cut short or lacks its end marker, {error}") from None
    with _held(memory, limits):
        return has_all_pixels(data)


def _open(data: bytes, shortest: int, limits: Limits) -> tuple[Picture, int]:
    """Returns an image before it is decoded, and the memory that decoding will take, in bytes.

    The sides of a large JPEG will be divided, but none to fewer than `shortest` pixels.
    """
    # Pillow's own limit is a global; its decoders check it for an image inside another too: it is never below ours
    if limits.max_pixels > (Image.MAX_IMAGE_PIXELS or limits.max_pixels):
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        source = io.BytesIO(data) if data.startswith(JPEG) else Source(data)
        image = Image.open(source, formats=openers(limits.formats))
    except UnidentifiedImageError:
        raise ImageError("not_an_image", unread(data, limits.formats)) from None
    if (kind := kind_of(image, data)) not in limits.formats.split(","):
        raise ImageError("not_an_image", not_named(kind))
    size = image.size
    divided = image.draft("RGB", (shortest, shortest))
    memory = memory_of(image, size, data, limits.max_pixels)
    return Picture(image, size, factor=size[0] / divided[1][2] if divided else 1), memory


def _in_rgb(picture: Picture, shortest: int, turned: bool) -> Picture:
    """Returns a decoded picture in RGB. One that is large, and not ready as it is, is divided on the way."""
    image, factor = picture.image, 1
    if image.width * image.height > LARGE and (turned or not is_rgb(image)):
        factor = max(1, int(min(image.size) / shortest / REDUCING_GAP))
    size = picture.size if picture.factor > 1 else image.size  # of an image inside, a header may have given another
    return Picture(to_rgb(image, factor), size, factor=picture.factor * factor)
