"""The ResNeXt-50 (32x4d) weights that torchvision and timm publish: where they lie and what images they expect.

Sizes, interpolations and licences are those of the tables in torchvision 0.29 and timm 1.0.31. All of them were trained
on ImageNet-1k, with the mean and the standard deviation that `Preprocessing` has by default.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Literal

from training.contract.manifest import Preprocessing
from training.errors import TrainingError

HUB_PREFIX = "timm/resnext50_32x4d."


class PresetError(TrainingError):
    """A preset that does not exist, or an image size that it was not measured at."""


@dataclass(frozen=True)
class Preset:
    """The facts of one published file.

    `resize` has the short side before the crop, for each image size; the first size is the one that it was measured at
    in its table. `original` is the beginning of the SHA-256 of the `.pth` file that it was made from, not of the file
    on the hub.
    """

    name: str
    resize: dict[int, int]
    interpolation: Literal["bilinear", "bicubic"]
    licence: str
    original: str

    @property
    def hub(self) -> str:
        """The name of its repository on the hub, which holds `model.safetensors`."""
        return HUB_PREFIX + self.name

    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """Returns what images have to go through, by default at the first size. Raises PresetError for another size."""
        size = image_size or next(iter(self.resize))
        if size not in self.resize:
            sizes = " and ".join(map(str, self.resize))
            raise PresetError(f"the preset {self.name!r} is known for images of {sizes} pixels, got {size}")
        return Preprocessing(
            height=size, width=size, resize_mode="crop", resize=self.resize[size], interpolation=self.interpolation
        )


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("tv_in1k", {224: 256}, "bilinear", "bsd-3-clause", "7cdf4587"),
        Preset("tv2_in1k", {224: 232}, "bilinear", "bsd-3-clause", "1a0047aa"),
        Preset("a1h_in1k", {224: 235, 288: 288}, "bicubic", "apache-2.0", "0146ab0a"),
        Preset("a1_in1k", {224: 235, 288: 288}, "bicubic", "apache-2.0", "b5a91a1d"),
        Preset("a2_in1k", {224: 235, 288: 288}, "bicubic", "apache-2.0", "efc76add"),
        Preset("a3_in1k", {224: 235}, "bicubic", "apache-2.0", "3e450271"),
        Preset("ra_in1k", {224: 256, 288: 303}, "bicubic", "apache-2.0", "d733960d"),
        Preset("gluon_in1k", {224: 256}, "bicubic", "apache-2.0", "e6a097c1"),
        Preset("fb_swsl_ig1b_ft_in1k", {224: 256}, "bilinear", "cc-by-nc-4.0", "72679e44"),
        Preset("fb_ssl_yfcc100m_ft_in1k", {224: 256}, "bilinear", "cc-by-nc-4.0", "ddb3e555"),
    )
}


def preset_named(name: str) -> Preset:
    """Returns a preset. Raises PresetError, with the names that there are."""
    if name not in PRESETS:
        raise PresetError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def imagenet_labels() -> list[str]:
    """Returns the 1000 classes of ImageNet-1k, all different, in the order of the published heads."""
    return resources.files(__package__).joinpath("imagenet.txt").read_text("utf-8").splitlines()
