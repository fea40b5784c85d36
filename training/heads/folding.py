"""Puts a head into an exported graph, and cuts the graph off before its head.

In every variant of a version the logits are one float32 MatMul [features, classes] and one Add [classes]: versions with
the same backbone differ in these two constants and nothing else.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from training.contract.manifest import OUTPUT_NAME
from training.exported.editing import GraphError, drop_leftovers, set_constant

FEATURES_NAME = "features"  # float32 [N, features]


class Head(NamedTuple):
    """The last layer: `kernel` float32 [features, classes], `bias` float32 [classes]."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def write_head(path: Path, head: Head) -> None:
    """Writes a head as an `.npz` file, in one rename."""
    new = path.with_name(f"new.{path.name}")
    np.savez(new, kernel=head.kernel, bias=head.bias)
    new.replace(path)


def read_head(path: Path) -> Head:
    """Reads a head that `write_head` wrote."""
    with np.load(path) as arrays:
        return Head(arrays["kernel"], arrays["bias"])


def set_head(model: onnx.ModelProto, head: Head, labels: list[str]) -> None:
    """Gives an exported graph another head, for other classes. Raises GraphError."""
    product, add = _head_of(model)
    set_constant(model, product.input[1], head.kernel)
    set_constant(model, add.input[1], head.bias)
    shape = model.graph.output[0].type.tensor_type.shape
    shape.dim[-1].ClearField("dim_param")
    shape.dim[-1].dim_value = len(labels)
    del model.graph.value_info[:]  # shapes of the old head
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    helper.set_model_props(model, metadata | {"labels": json.dumps(labels, ensure_ascii=False)})


def put_head(graph: Path, head: Head, labels: list[str]) -> None:
    """Gives an exported file another head. Raises GraphError."""
    model = onnx.load(graph)
    set_head(model, head, labels)
    onnx.checker.check_model(model, full_check=True)
    graph.unlink()  # it may be a second name of a file that is kept
    onnx.save(model, graph)


def cut_off_head(model: onnx.ModelProto) -> None:
    """Makes an exported graph answer with the features instead of probabilities. Raises GraphError."""
    product, _ = _head_of(model)
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(FEATURES_NAME, onnx.TensorProto.FLOAT, [None, None]),
    )
    model.graph.node.append(helper.make_node("Identity", [product.input[0]], [FEATURES_NAME], FEATURES_NAME))
    drop_leftovers(model)


def _head_of(model: onnx.ModelProto) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Returns the MatMul and the Add of the logits."""
    made_by = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name for tensor in model.graph.initializer}
    softmax = made_by.get(OUTPUT_NAME)
    add = made_by.get(softmax.input[0]) if softmax else None
    product = made_by.get(add.input[0]) if add else None
    if not (
        softmax
        and add
        and product
        and [node.op_type for node in (product, add, softmax)] == ["MatMul", "Add", "Softmax"]
        and {product.input[1], add.input[1]} <= constants
    ):
        raise GraphError("the graph should end with MatMul, Add and Softmax, as the export writes a head with a bias")
    return product, add
