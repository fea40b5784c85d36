"""A decoded picture to the size of the network's input."""

from dataclasses import dataclass, replace
from typing import Self

from PIL import Image, ImageOps

from training.contract.manifest import Preprocessing

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
TURNS = {  # by EXIF orientation: the turn that makes an image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {5, 6, 7, 8}  # turns that exchange width and height
RIGHT_TO_LEFT = {2, 3, 6, 7}  # turns after which what was the right or the lower edge is the left one
BOTTOM_TO_TOP = {3, 4, 7, 8}
REDUCING_GAP = 2.0  # times the size asked for: what a first, coarse step may leave
STRIP = 16  # longest side in short ones: a strip's ends are cut off, or 1 x 50000 would become 256 x 12800000

Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Picture:
    """An RGB image, and the picture that it shows.

    A JPEG's decoder divides both sides by `factor`. Where they cannot be divided, the picture ends within the last
    pixel: on the right and below, or where a turn has brought that edge.
    """

    image: Image.Image
    size: Size  # of the picture, undivided
    factor: float = 1
    begins_within: tuple[bool, bool] = (False, False)  # whether that edge is now the left one, the upper one

    def upright(self, orientation: int) -> Self:
        """Returns the picture as it was seen, by its EXIF orientation."""
        if orientation not in TURNS:
            return self
        return replace(
            self,
            image=self.image.transpose(TURNS[orientation]),
            size=self.size[::-1] if orientation in SIDEWAYS else self.size,
            begins_within=(orientation in RIGHT_TO_LEFT, orientation in BOTTOM_TO_TOP),
        )

    @property
    def box(self) -> Box:
        """The part of the image that the picture fills."""
        shown = [side / self.factor for side in self.size]
        left, top = (
            max(0.0, self.image.size[axis] - shown[axis]) if self.begins_within[axis] else 0.0 for axis in range(2)
        )
        return left, top, min(left + shown[0], self.image.width), min(top + shown[1], self.image.height)


def shortest_side(preprocessing: Preprocessing) -> int:
    """Returns the length in pixels below which no side of a picture should be divided before `resized`."""
    return preprocessing.resize or max(preprocessing.height, preprocessing.width)


def resized(picture: Picture, preprocessing: Preprocessing) -> Image.Image:
    """Returns an image of the size that `preprocessing` names."""
    image, size = picture.image, (preprocessing.width, preprocessing.height)
    resampling = RESAMPLING[preprocessing.interpolation]
    if preprocessing.resize_mode == "pad":
        return ImageOps.pad(image, size, method=resampling)
    if preprocessing.resize:
        return _center_of_resized(picture, preprocessing.resize, size, resampling)
    box: Box = (0.0, 0.0, image.width, image.height)
    if preprocessing.resize_mode == "crop":
        # the crop is the resize's own box: a 1 x 50000 strip is never blown up to 224 x 11200000
        scale = min(image.width / size[0], image.height / size[1])
        width, height = min(size[0] * scale, image.width), min(size[1] * scale, image.height)  # despite rounding
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (left, top, left + width, top + height)
    if image.size == size and box == (0, 0, *size):
        return image
    return image.resize(size, resampling, box=box, reducing_gap=REDUCING_GAP)


def _center_of_resized(picture: Picture, short: int, size: Size, resampling: Image.Resampling) -> Image.Image:
    """Returns what torchvision's Resize(short) and CenterCrop(size) make of a picture, pixel for pixel.

    Sizes and places are rounded as there. A `reducing_gap` would change pixels by up to 7 of 256.
    """
    picture = _without_ends(picture)
    width, height = picture.size
    whole = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = (round((whole[axis] - size[axis]) / 2) for axis in range(2))
    large = picture.image.resize(whole, resampling, box=picture.box)
    return large.crop((left, top, left + size[0], top + size[1]))


def _without_ends(picture: Picture) -> Picture:
    """Returns the middle of a strip; any other picture as it is."""
    image = picture.image
    longest = STRIP * min(image.size)
    if max(image.size) <= longest:
        return picture
    cut_x, cut_y = (max(0, side - longest) // 2 for side in image.size)
    middle = image.crop((cut_x, cut_y, image.width - cut_x, image.height - cut_y))
    return Picture(middle, middle.size)
