"""The number of scans of a JPEG: how often its decoder passes over all of the picture."""

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from training.images.metadata import JPEG_SCAN, jpeg_segments

FEW = 20  # an encoder of progressive JPEGs makes 10


def scans(image: JpegImageFile, data: bytes) -> int:
    """Returns how many scans the decoder of an opened JPEG of these bytes will look for, at least 1."""
    if not image.info.get("progressive") and _first_scan_has_all(image, data):
        return 1  # libjpeg then stops behind it
    marked = _marked(data)
    # a video behind the picture, as phones put there, has some of these bytes by chance
    return marked if marked <= FEW else sum(code == JPEG_SCAN for code, _, _ in jpeg_segments(data))


def _first_scan_has_all(image: JpegImageFile, data: bytes) -> bool:
    """Whether the scan behind whose header Pillow has stopped is one of all components."""
    assert image.fp is not None
    length = 6 + 2 * image.layers
    return data.startswith(bytes([0xFF, JPEG_SCAN, 0, length, image.layers]), image.fp.tell() - 2 - length)


def _marked(data: bytes) -> int:
    """Counts the marker, wherever it stands: in a tenth of the time that `bytes.count` takes."""
    count = 0
    for begin in (0, 1):
        pairs = np.frombuffer(data, "<u2", (len(data) - begin) // 2, begin)
        count += int(np.count_nonzero(pairs == int.from_bytes([0xFF, JPEG_SCAN], "little")))
    return max(1, count)
