"""The network's table of stages, as a config asks for it and a manifest records it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Blocks = Annotated[int, Field(ge=1)]


class Architecture(BaseModel):
    """The network's table of stages. The defaults are ResNeXt-50 (32x4d)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depths: tuple[Blocks, ...] = Field((3, 4, 6, 3), min_length=1, max_length=6, description="blocks in each stage")
    cardinality: int = Field(32, ge=1, description="groups of the 3x3 convolutions")
    base_width: int = Field(4, ge=1, description="channels of a group in the first stage")
    stem_width: int = Field(64, ge=1, description="channels of the 7x7 stem; a stage's output is 4 times as wide")


def name_of(architecture: Architecture) -> str:
    """Returns the usual name of the network, such as `resnext50_32x4d`."""
    depth = 3 * sum(architecture.depths) + 2
    return f"resnext{depth}_{architecture.cardinality}x{architecture.base_width}d"
