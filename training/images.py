"""Encoded bytes to the network's input: the one decode-and-resize, for training and serving alike.

Whatever happens to pixels before the graph happens here, so the two can not drift apart.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from training.contract import Preprocessing
from training.errors import TrainingError

MAX_PIXELS = 89_478_485  # Pillow's own warning level: 268 MB as RGB
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` refuses at that level instead

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# every format that Pillow reads, but for EPS (runs Ghostscript on the upload) and the stubs that can not decode
Image.init()
FORMATS = tuple(sorted(set(Image.OPEN) - {"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"}))


class ImageError(TrainingError):
    """Bytes that are no usable image. `code` is stable: empty_file, not_an_image, image_too_large, corrupt_image,
    unsupported_pixels."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode(source: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes one image to uint8 [height, width, 3] RGB of the size that `preprocessing` names.

    EXIF orientation is applied, transparency lies on white, 16-bit is cut to 8, an animation gives its first frame.
    JPEGs are scaled while decoding (libjpeg's DCT scaling: 16.6 ms in place of 142 ms for a 12-megapixel photo).
    Thread-safe; Pillow releases the GIL in decode and resize. Raises ImageError.
    """
    with _open(source, max_pixels) as image:
        size = max(preprocessing.height, preprocessing.width)
        image.draft("RGB", (size, size))
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # decoders raise anything on hostile bytes: OSError, SyntaxError, struct.error ...
            raise ImageError("corrupt_image", f"the {image.format} image can not be decoded: {error}") from error
        return np.asarray(_resize(_to_rgb(upright), preprocessing))


def _open(source: bytes | Path, max_pixels: int) -> Image.Image:
    if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
        raise ImageError("empty_file", "the file is empty")
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not_an_image", f"the file is in no known image format; it starts {_head(source)!r}") from None
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"the limit is {max_pixels} pixels: {error}") from None
    except Exception as error:  # a header parser's complaint, of any type
        raise ImageError("corrupt_image", f"the image's header can not be read: {error}") from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            "image_too_large",
            f"the limit is {max_pixels} pixels, the image has {image.width} x {image.height}",
        )
    return image


def _head(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source[:16]
    with source.open("rb") as file:
        return file.read(16)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:  # a PNG may name one colour transparent
        return image
    if image.mode == "F":
        raise ImageError("unsupported_pixels", "32-bit float pixels have no agreed range; convert to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit samples, in 16 or 32 bits of storage
        image = Image.fromarray(np.clip(np.asarray(image) // 256, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = (preprocessing.width, preprocessing.height)
    resampling = RESAMPLING[preprocessing.interpolation]
    if preprocessing.resize_mode == "pad":
        return ImageOps.pad(image, size, method=resampling)
    box = (0.0, 0.0, float(image.width), float(image.height))
    if preprocessing.resize_mode == "crop":
        # the crop is the resize's own box: a 1 x 50000 strip is never blown up to 224 x 11200000
        scale = min(image.width / size[0], image.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (left, top, left + width, top + height)
    if image.size == size and box == (0, 0, *size):
        return image
    return image.resize(size, resampling, box=box, reducing_gap=2.0)
