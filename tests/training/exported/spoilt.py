"""A network that float32 computes well and narrower numbers do not."""

from pathlib import Path

import onnx
from onnx import numpy_helper


def spoil(path: Path, writer: str, reader: str, factor: float = 1000) -> None:
    """Multiplies one output channel of the convolution `writer`, and divides it where `reader` reads it.

    Float32 computes the same as before; INT8 keeps next to nothing of the other channels.
    """
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name: str, channels: tuple[object, ...], factor: float) -> None:
        values = numpy_helper.to_array(constants[name]).copy()
        values[channels] *= factor
        constants[name].CopyFrom(numpy_helper.from_array(values, name))

    def convolution(name: str) -> onnx.NodeProto:
        return next(node for node in model.graph.node if node.op_type == "Conv" and name in node.input[1])

    for name in convolution(writer).input[1:]:  # weights and bias
        scale(name, (0,), factor)
    scale(convolution(reader).input[1], (slice(None), 0), 1 / factor)
    onnx.save(model, path)
