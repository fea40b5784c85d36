"""The folders of published weights and of derived files, which the service, the worker and the command line share."""

import os
from pathlib import Path

from pydantic import Field

from training.limits import Limits


def _cache() -> Path:
    """Returns the user's folder for derived files, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnext"


class Places(Limits):
    """Folders from the environment: each field is `RESNEXT_<FIELD>`, and an empty value means the default."""

    weights: Path = Field(Path("weights"), description="folder of published weights to start a training from")
    cache: Path = Field(
        default_factory=_cache,
        description="folder of what trainings compute once and use again: features of images, files of backbones; "
        "it may be deleted at any time (default: resnext in the user's cache folder)",
    )

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits and folders, for a child process that trains."""
        return {**super().environment_of_child(), **self._variables(Places)}
