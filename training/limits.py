"""The limit on images that the service, the worker and the command line have to agree on."""

import os

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "RESNEXT_"
MAX_PIXELS = 89_478_485  # Pillow's own warning level: 268 MB as RGB


class Limits(BaseSettings):
    """Each field is the environment variable `RESNEXT_<FIELD>`; empty means the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    max_pixels: PositiveInt = Field(
        MAX_PIXELS, description="width times height of an image, at most, in requests, datasets and training alike"
    )

    def environment_of_child(self) -> dict[str, str]:
        """This process' environment with these limits, wherever they were set: for a process that decodes images."""
        return {**os.environ, **{ENV_PREFIX + name.upper(): str(getattr(self, name)) for name in Limits.model_fields}}
