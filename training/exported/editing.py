"""Functions that find, replace and drop nodes and constants of an ONNX graph."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.errors import TrainingError


class GraphError(TrainingError):
    """A graph that does not have the form that `training.phases.export` writes."""


def drop_leftovers(model: onnx.ModelProto) -> None:
    """Removes nodes and constants that nothing reads, and shapes recorded for the old graph."""
    used = {output.name for output in model.graph.output}
    for node in reversed(model.graph.node):
        if used & set(node.output):
            used.update(node.input)
    nodes = [node for node in model.graph.node if used & set(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def nodes_of(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def tensor_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return tensor
    raise GraphError(f"{name} should be a constant of the graph")


def constant_of(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    value: NDArray[np.float32] = numpy_helper.to_array(tensor_of(model, name))
    return value


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[np.float32]) -> None:
    tensor_of(model, name).CopyFrom(numpy_helper.from_array(value, name))


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in node.attribute if a.name not in (name, "auto_pad")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def replace_nodes(model: onnx.ModelProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
    """Puts the new nodes where the first of the old ones stood."""
    at = next(i for i, node in enumerate(model.graph.node) if node.output[0] == old[0].output[0])
    gone = {node.output[0] for node in old}
    rest = [node for node in model.graph.node if node.output[0] not in gone]
    nodes = [*rest[:at], *new, *rest[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def insert_before(model: onnx.ModelProto, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
    at = next(i for i, other in enumerate(model.graph.node) if other.output[0] == node.output[0])
    model.graph.node.insert(at, new)


def image_shape(model: onnx.ModelProto) -> list[int]:
    """Returns height, width and channels of the input."""
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
