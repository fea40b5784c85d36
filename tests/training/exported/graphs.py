"""Looks into an ONNX graph, and at what it answers."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from training.exported.classifier import Probabilities, onnx_classifier


def answers(model: onnx.ModelProto, images: NDArray[np.uint8], folder: Path) -> Probabilities:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    return onnx_classifier(folder / "model.onnx")(images)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
