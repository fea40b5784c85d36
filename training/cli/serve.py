"""`resnext serve` and `resnext tune`: the service. It is another program, which this process becomes."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, Field

from training.limits import ENV_PREFIX

ROOT = Path(__file__).parents[2]  # where this release's `app` lies: the checkout, or the environment's packages


class Serve(BaseModel):
    """Serves the model that is live, until SIGTERM or Ctrl-C.

    Each flag is the environment variable RESNEXT_<FLAG>; docs/settings.md has those that have no flag.
    """

    host: str | None = Field(None, description="address to listen on (default: 127.0.0.1)")
    port: int | None = Field(None, ge=1, le=65535, description="port to listen on (default: 8000)")
    models: Path | None = Field(None, description="folder of the model repository (default: models)")
    model: str | None = Field(None, description="which model of the repository (default: resnext50)")
    worker: bool | None = Field(None, description="run training jobs beside the service (default: false)")

    def cli_cmd(self) -> None:
        typed = self.model_dump(exclude_none=True)
        become_app([], {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in typed.items()})


class Tune(BaseModel):
    """Measures on this machine, with the version that is live, which settings of the service are best."""

    # never made from flags: those of `tune` are the service's, and `main` hands them over as they are


def become_app(arguments: list[str], variables: dict[str, str] | None = None) -> NoReturn:
    """Becomes `python -m app`: the one beside this package, not one that the current folder happens to hold."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "app", *arguments]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path, **(variables or {})})
