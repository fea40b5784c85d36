"""`resnext serve`, `resnext tune` and `resnext keys`: the service. It is another program; this process becomes it."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, Field

from training.environment import ENV_PREFIX

OF_APP = ("tune", "keys")  # the commands that the service has itself
ROOT = Path(__file__).parents[2]  # the folder of this release's `app`: the checkout, or the environment's packages


class Serve(BaseModel):
    """Serves the active version until SIGTERM or Ctrl-C.

    Each flag is also the environment variable RESNEXT_<FLAG>. docs/settings.md lists the settings without a flag.
    """

    host: str | None = Field(None, description="address to listen on (default: 127.0.0.1)")
    port: int | None = Field(None, ge=1, le=65535, description="port to listen on (default: 8000)")
    models: Path | None = Field(None, description="folder of the model repository (default: models)")
    model: str | None = Field(None, description="name of the model in the repository (default: resnext50)")
    worker: bool | None = Field(None, description="run training jobs beside the service (default: false)")

    def cli_cmd(self) -> None:
        typed = self.model_dump(exclude_none=True)
        become_app([], {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in typed.items()})


class Tune(BaseModel):
    """Measures on this machine, with the active version, which settings of the service are best."""

    # never made from flags: `main` hands the flags of `tune` to the service as they are


class MakeKeys(BaseModel):
    """Makes API keys for the service: `resnext keys new NAME`."""

    # never made from flags, as Tune


def become_app(arguments: list[str], variables: dict[str, str] | None = None) -> NoReturn:
    """Becomes `python -m app`: the app beside this package, not one that lies in the current folder."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "app", *arguments]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path, **(variables or {})})  # noqa: S606  no shell is what is wanted
