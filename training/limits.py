"""The limit on the size of images, which the service, the worker and the command line share."""

import os

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "RESNEXT_"
MAX_PIXELS = 89_478_485  # Pillow's own limit for a warning: 268 MB as RGB


class Limits(BaseSettings):
    """Limits from the environment: each field is `RESNEXT_<FIELD>`, and an empty value means the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    max_pixels: PositiveInt = Field(
        MAX_PIXELS, description="largest width times height of an image, in requests, datasets and training"
    )

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits, for a child process that decodes images."""
        return {**os.environ, **self._variables(Limits)}

    def _variables(self, kind: "type[Limits]") -> dict[str, str]:
        return {ENV_PREFIX + name.upper(): str(getattr(self, name)) for name in kind.model_fields}
