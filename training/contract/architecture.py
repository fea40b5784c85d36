"""The network's table of stages, as a config asks for it and a manifest records it."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

EXPANSION = 4  # a block's output channels per channel of its stage
# 4 GB in float32, 16 GB in a training with Adam. ResNeXt-101 (32x48d), the largest that was published, has 829 million
MOST_PARAMETERS = 1_000_000_000

Blocks = Annotated[int, Field(ge=1, le=200)]  # ResNet-152 has 36
Width = Annotated[int, Field(ge=1, le=4096)]


class Architecture(BaseModel):
    """The network's table of stages. The defaults are ResNeXt-50 (32x4d)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depths: tuple[Blocks, ...] = Field((3, 4, 6, 3), min_length=1, max_length=6, description="blocks in each stage")
    cardinality: Width = Field(32, description="groups of the 3x3 convolutions")
    base_width: Width = Field(4, description="channels of a group in the first stage")
    stem_width: Width = Field(64, description="channels of the 7x7 stem; a stage's output is 4 times as wide")

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        if (number := parameters(self)) > MOST_PARAMETERS:
            raise ValueError(
                f"the network should have at most {MOST_PARAMETERS:,} parameters, it would have {number:,}"
            )
        return self


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


def parameters(architecture: Architecture) -> int:
    """Returns the number of parameters before the last layer, the moving statistics of BatchNorm among them."""
    norm, incoming = 4, architecture.stem_width  # numbers of a BatchNorm for each channel; channels that come in
    total = incoming * (7 * 7 * 3 + norm)
    for stage in stages(architecture):
        per_block = stage.width * (9 * stage.width // architecture.cardinality + 2 * norm)
        per_block += stage.filters * (stage.width + norm)
        total += stage.blocks * per_block
        total += stage.width * (incoming + (stage.blocks - 1) * stage.filters)  # the first convolution of each block
        if stage.stride != 1 or incoming != stage.filters:
            total += stage.filters * (incoming + norm)  # the shortcut
        incoming = stage.filters
    return total


def name_of(architecture: Architecture) -> str:
    """Returns the usual name of the network, such as `resnext50_32x4d`."""
    depth = 3 * sum(architecture.depths) + 2
    return f"resnext{depth}_{architecture.cardinality}x{architecture.base_width}d"
