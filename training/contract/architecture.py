"""The network's table of stages, as a config asks for it and a manifest records it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

EXPANSION = 4  # a block's output channels per channel of its stage

Blocks = Annotated[int, Field(ge=1)]


class Architecture(BaseModel):
    """The network's table of stages. The defaults are ResNeXt-50 (32x4d)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depths: tuple[Blocks, ...] = Field((3, 4, 6, 3), min_length=1, max_length=6, description="blocks in each stage")
    cardinality: int = Field(32, ge=1, description="groups of the 3x3 convolutions")
    base_width: int = Field(4, ge=1, description="channels of a group in the first stage")
    stem_width: int = Field(64, ge=1, description="channels of the 7x7 stem; a stage's output is 4 times as wide")


@dataclass(frozen=True)
class Stage:
    """One row of the paper's table."""

    blocks: int
    width: int  # channels of the grouped 3x3 convolution
    filters: int  # channels of the output
    stride: int


def stages(architecture: Architecture) -> list[Stage]:
    """Returns the table's rows: for ResNeXt-50 (32x4d) 3, 4, 6 and 3 blocks of width 128, 256, 512 and 1024."""
    return [
        Stage(
            blocks=blocks,
            width=architecture.cardinality * architecture.base_width * 2**i,
            filters=EXPANSION * architecture.stem_width * 2**i,
            stride=1 if i == 0 else 2,
        )
        for i, blocks in enumerate(architecture.depths)
    ]


def name_of(architecture: Architecture) -> str:
    """Returns the usual name of the network, such as `resnext50_32x4d`."""
    depth = 3 * sum(architecture.depths) + 2
    return f"resnext{depth}_{architecture.cardinality}x{architecture.base_width}d"
