"""FP16: the verified graph in float16 for GPUs, and a copy with which a CPU answers as a GPU would."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.exported.editing import (
    GraphError,
    constant_of,
    drop_leftovers,
    insert_before,
)

HALF_INPUT, HALF_OUTPUT = "stem_float16", "pool_float32"  # first tensor in float16, first tensor in float32 after it
_EXACT = ("Relu", "MaxPool", "Pad", "Transpose", "Reshape")  # their results are float16 numbers when their inputs are
_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def halve(model: onnx.ModelProto) -> None:
    """Makes the graph compute in float16 from the first convolution to the last: half the bytes, and faster on a GPU.

    Normalization, mean, logits and softmax stay float32: below 1 float16 has steps of 1/2048. Raises GraphError.
    """
    nodes = list(model.graph.node)
    kinds = [node.op_type for node in nodes]
    if "Conv" not in kinds or kinds.count("ReduceMean") != 1:
        raise GraphError("the graph should have convolutions and one mean after them, as the export writes it")
    stem, mean = nodes[kinds.index("Conv")], nodes[kinds.index("ReduceMean")]
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == _FLOAT}
    for node in nodes[kinds.index("Conv") : kinds.index("ReduceMean")]:
        for i, name in enumerate(node.input):
            if name in constants:
                node.input[i] = _half_constant(model, name)
    begin = helper.make_node("Cast", [stem.input[0]], [HALF_INPUT], HALF_INPUT, to=_FLOAT16)
    end = helper.make_node("Cast", [mean.input[0]], [HALF_OUTPUT], HALF_OUTPUT, to=_FLOAT)
    stem.input[0], mean.input[0] = HALF_INPUT, HALF_OUTPUT
    insert_before(model, stem, begin)
    insert_before(model, mean, end)
    drop_leftovers(model)


def widen(model: onnx.ModelProto) -> None:
    """Makes a CPU answer as a GPU does with a halved graph: sums in float32, each result rounded to float16.

    ONNX Runtime's CPU provider has hardly any float16 kernels. It computes a halved graph in float32 and drops the
    rounding between two nodes, and so values that overflow on a GPU stay finite.
    """
    half = {HALF_INPUT, *(tensor.name for tensor in model.graph.initializer if tensor.data_type == _FLOAT16)}
    made: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name in half]
        if inputs and node.output[0] != HALF_OUTPUT:
            for name in inputs:
                if name not in wide:
                    wide[name] = f"{name}_wide"
                    made.append(helper.make_node("Cast", [name], [wide[name]], wide[name], to=_FLOAT))
            node.input[:] = [wide.get(name, name) for name in node.input]
            made.append(node)
            output = node.output[0]
            half.add(output)
            if node.op_type in _EXACT:
                wide[output] = output
            else:
                node.output[0] = exact = f"{output}_exact"
                made.append(helper.make_node("Cast", [exact], [output], exact, to=_FLOAT16))
        else:
            made.append(node)
    del model.graph.node[:]
    model.graph.node.extend(made)


def _half_constant(model: onnx.ModelProto, name: str) -> str:
    """Returns the name of a float16 copy of a constant; other nodes may read the constant itself."""
    copy = f"{name}_float16"
    if copy not in {tensor.name for tensor in model.graph.initializer}:
        with np.errstate(over="ignore"):  # infinite weights show in the accuracy
            value = constant_of(model, name).astype(np.float16)
        model.graph.initializer.append(numpy_helper.from_array(value, copy))
    return copy
