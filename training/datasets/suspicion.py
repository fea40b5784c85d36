"""Pictures that are read, and that nothing can be learned from: what the network sees is looked at once."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from training.datasets.report import Suspicious

SHADES = 2  # of 255, by which the pixels of one colour may differ: JPEG rounds
DARK, BRIGHT = 16, 239  # below and above: 12-bit values in 16 bits stay below 16


class Suspicion:
    """Remembers the pictures that it has seen. Used by one thread."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[str, str]] = {}

    def of(self, look: "Look", path: str, sha256: str) -> Suspicious | None:
        """What is odd about a picture; of those of one colour nothing is said about others that are the same."""
        if look.remark:
            code, message = look.remark
            return Suspicious(path=path, code=code, message=message)
        first, content = self._seen.setdefault(look.digest, (path, sha256))
        if first == path or content == sha256:  # files of the same bytes are listed as such
            return None
        return Suspicious(path=path, code="same_picture", message=f"decodes to the same pixels as {first}")


class Look:
    """What is kept of decoded pixels, uint8 [height, width, 3]."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        self.remark = _remark(pixels)


def _remark(pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    if (high - low <= SHADES).all():
        colour = ", ".join(map(str, high.tolist()))
        return "one_colour", f"decodes to one colour, rgb({colour}); transparency lies on white, 16 bits are cut to 8"
    if high.max() < DARK:
        return "almost_black", f"no value is above {high.max()} of 255; of 16-bit values the upper eight bits are kept"
    if low.min() > BRIGHT:
        return "almost_white", f"no value is below {low.min()} of 255; transparency lies on white"
    return None
