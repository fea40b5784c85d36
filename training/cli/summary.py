"""`resnext summary`: the network in figures."""

import json
import sys

from pydantic import BaseModel, Field

from training.cli import terminal
from training.cli.terminal import Heading, console
from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing

SHAPE_COLUMNS = Heading("layer", "text"), Heading("output", "text")
LAYER_COLUMNS = (
    Heading("layer", "text"),
    Heading("kind", "text"),
    Heading("output", "text"),
    Heading("parameters", "figures"),
)


class Summarize(BaseModel):
    """Shows the network in figures: output shapes, parameters, multiply-adds."""

    image_size: int = Field(224, ge=32, le=1024, description="height and width of the input in pixels")
    classes: int = Field(1000, ge=2, description="number of classes")
    architecture: Architecture = Architecture()
    layers: bool = Field(False, description="list every layer")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        from training.network import resnext

        size = Preprocessing(height=self.image_size, width=self.image_size)
        model = resnext.build(self.architecture, size, self.classes)
        summary = resnext.summary(model)
        if self.json_:
            sys.stdout.write(json.dumps(summary, indent=2) + "\n")
            return
        console.print(summary["name"], highlight=False)
        if self.layers:
            terminal.table(LAYER_COLUMNS, resnext.layer_rows(model))
        shapes = [(name, " x ".join(map(str, shape))) for name, shape in summary["output_shapes"].items()]
        terminal.table(SHAPE_COLUMNS, shapes)
        for name, count in summary["parameters"].items():
            console.print(f"{name.replace('_', '-')} parameters: {count:,}")
        console.print(f"multiply-adds per image: {summary['multiply_adds']:,}")
