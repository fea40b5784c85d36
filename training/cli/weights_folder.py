"""The options that the commands of `resnext weights` share: the folder, and one name in it."""

from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from training.jobs.settings import SharedSettings
from training.weights.store import WeightsStore


class WeightsFolder(BaseModel):
    """A command about the folder of weights."""

    weights: Path | None = Field(None, description="folder of the weights (default: RESNEXT_WEIGHTS, else weights)")

    @property
    def store(self) -> WeightsStore:
        """The folder's weights."""
        return WeightsStore(self.weights or SharedSettings().weights)


class OneWeights(WeightsFolder):
    """A command about weights in the folder."""

    name: CliPositionalArg[str] = Field(description="the weights' name")
