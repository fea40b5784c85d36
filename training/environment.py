"""The limits and the folders that the service, the worker and the command line take from the environment."""

import os
from pathlib import Path

from pydantic import Field, PositiveInt, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "RESNEXT_"
MAX_PIXELS = 64_000_000  # phones have 12 to 50 megapixels, full-frame cameras up to 61
# what people upload, and what data sets are published in (PPM)
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF", "PPM")
# what Pillow reads beyond, by its names. The last three are kinds of a format above
RARE_FORMATS = (
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "IMT", "IPTC", "JPEG2000"),
    *("MCIDAS", "MSP", "PCD", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "XPM", "XBM", "XVTHUMB"),
    *("BIGTIFF", "BMP-RLE", "PPM-PLAIN"),
)


class Limits(BaseSettings):
    """Limits from the environment: each field is `RESNEXT_<FIELD>`, and an empty value means the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    max_pixels: PositiveInt = Field(
        MAX_PIXELS,
        description="largest width times height of an image, in requests, datasets and training; memory for decoding "
        "is 16 bytes times as much",
    )
    formats: str = Field(
        ",".join(FORMATS),
        description="formats of images that are read, separated by commas; datasets.md lists all",
    )

    @field_validator("formats")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [name.strip().upper() for name in value.replace("\n", ",").split(",") if name.strip()]
        if not names or not {*names} <= {*FORMATS, *RARE_FORMATS}:
            raise ValueError(f"should be of {', '.join(FORMATS + RARE_FORMATS)}")
        return ",".join(names)

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits, for a child process that decodes images."""
        return {**os.environ, **self._variables(Limits)}

    def _variables(self, kind: "type[Limits]") -> dict[str, str]:
        return {ENV_PREFIX + name.upper(): str(getattr(self, name)) for name in kind.model_fields}


class Places(Limits):
    """Folders from the environment: each field is `RESNEXT_<FIELD>`, and an empty value means the default."""

    weights: Path = Field(Path("weights"), description="folder of published weights, from which a training may start")
    cache: Path = Field(
        Path("~/.cache/resnext"),
        description="folder of what a training computes once for later ones: features of images, files of backbones. "
        "It may be deleted at any time",
    )

    @property
    def derived(self) -> Path:
        """The cache's folder, with `~` replaced by the user's home."""
        return self.cache.expanduser()

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits and folders, for a child process that trains."""
        return {**super().environment_of_child(), **self._variables(Places)}
