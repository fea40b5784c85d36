"""Pictures that can be read but teach nothing: the pixels that the network would see are examined once."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from training.datasets.report import Suspicious

SHADES = 2  # of 255: how far the pixels of one color may differ, since JPEG rounds
DARK, BRIGHT = 16, 239  # below and above: 12-bit values in 16 bits stay below 16


class Suspicion:
    """A memory of the pictures seen so far, which finds the odd ones. Used by one thread."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[str, str]] = {}

    def of(self, picture: "Picture", path: str, sha256: str) -> Suspicious | None:
        """Returns what is odd about a picture, or None.

        A picture of one color is reported as such, not as a copy of another picture of one color.
        """
        if picture.remark:
            code, message = picture.remark
            return Suspicious(path=path, code=code, message=message)
        first, content = self._seen.setdefault(picture.digest, (path, sha256))
        if first == path or content == sha256:  # files of the same bytes are listed elsewhere, as duplicates
            return None
        return Suspicious(path=path, code="same_picture", message=f"decodes to the same pixels as {first}")


class Picture:
    """A digest of decoded pixels, uint8 [height, width, 3], and what is odd about them."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        self.remark = _remark(pixels)


def _remark(pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
    """Returns a code and a message, or None where nothing is odd."""
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    if (high - low <= SHADES).all():
        color = ", ".join(map(str, high.tolist()))
        return "one_colour", f"decodes to one color, rgb({color}); transparency lies on white, 16 bits are cut to 8"
    if high.max() < DARK:
        return "almost_black", f"no value is above {high.max()} of 255; of 16-bit values the upper eight bits are kept"
    if low.min() > BRIGHT:
        return "almost_white", f"no value is below {low.min()} of 255; transparency lies on white"
    return None
