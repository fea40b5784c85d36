"""The folders of published weights and of derived files, which the service, the worker and the command line share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from training.limits import Limits


class Places(Limits):
    """Folders from the environment: each field is `RESNEXT_<FIELD>`, and an empty value means the default."""

    weights: Path = Field(Path("weights"), description="folder of published weights, from which a training may start")
    cache: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.cache/resnext"),
        validate_default=True,
        description="folder of what a training computes once for later ones: features of images, files of backbones. "
        "It may be deleted at any time",
    )

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits and folders, for a child process that trains."""
        return {**super().environment_of_child(), **self._variables(Places)}
