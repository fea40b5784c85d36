"""Rewrites of an exported ONNX graph that change its speed and not its answers.

ONNX Runtime's INT8 convolution on the CPU copies its input once for each group, and multiplies in blocks of 16 to 32
channels: the narrow groups of a ResNeXt cost it more than all its 1x1 convolutions. What it does to single tensors
in between (normalisation, padding, layout) is dear too once the convolutions are cheap. In float32 its kernels want
groups of 16 channels, and change the layout before and after each convolution that has narrower ones.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.contract.manifest import INPUT_NAME
from training.errors import TrainingError

INDICATOR = 255  # in the fourth channel: as large as a bright pixel, so that its weight is of the size of the others
STEM_INPUT = "image_float"  # uint8 values as float: what the first convolution reads
HALF_INPUT, HALF_OUTPUT = "stem_float16", "pool_float32"  # where float16 begins, and where it has ended


_EXACT = ("Relu", "MaxPool", "Pad", "Transpose", "Reshape")  # they make float16 numbers of float16 numbers
_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


class GraphError(TrainingError):
    """A graph that is not as `training.phases.export` writes it."""


def rewrite_for_cpus(model: onnx.ModelProto, width: int) -> None:
    """All that ONNX Runtime's kernels on a CPU gain from, with groups of `width` channels: exact, up to rounding.

    Raises GraphError.
    """
    fold_normalization(model)
    tidy(model)
    merge_groups(model, width)
    drop_leftovers(model)


def merge_groups(model: onnx.ModelProto, width: int) -> None:
    """Joins neighbouring groups of each convolution until each has `width` channels, or all are one: exact.

    The merged kernel is block-diagonal; what it adds are products with zero.
    """
    for node in _nodes(model, "Conv"):
        group = next((a for a in node.attribute if a.name == "group"), None)
        if group is None or group.i == 1:
            continue
        kernel = _constant(model, node.input[1])  # [filters, channels of a group, height, width]
        narrow = kernel.shape[1]
        merged = _joined(group.i, width // narrow)
        if merged > 1:
            _set(model, node.input[1], block_diagonal(kernel, group.i, merged))
            group.i //= merged


def block_diagonal(kernel: NDArray[np.float32], groups: int, merged: int) -> NDArray[np.float32]:
    """The kernel [F, c, h, w] of `groups` groups as one of groups/merged: [F, c * merged, h, w], zeros elsewhere."""
    filters, narrow = kernel.shape[:2]
    wide = np.zeros((filters, narrow * merged, *kernel.shape[2:]), kernel.dtype)
    for start in range(0, filters, filters // groups):
        block = start * groups // filters % merged * narrow
        wide[start : start + filters // groups, block : block + narrow] = kernel[start : start + filters // groups]
    return wide


def fold_normalization(model: onnx.ModelProto) -> None:
    """Moves `image * scale + offset` into the first convolution: exact, up to its zero padding at the border.

    There an offset that is added after normalisation is not seen, while one inside the kernel would be. So the image
    gets a fourth channel of one value, which the convolution pads with zero as it does the others: its weight is the
    offset's share. Raises GraphError.
    """
    nodes = list(model.graph.node[:5])
    if [node.op_type for node in nodes] != ["Cast", "Mul", "Add", "Transpose", "Conv"]:
        raise GraphError("the graph should begin with Cast, Mul, Add, Transpose, Conv, as the export writes it")
    cast, mul, add, transpose, conv = nodes
    scale, offset = (
        np.broadcast_to(_constant(model, node.input[1]).astype(np.float64).ravel(), 3) for node in (mul, add)
    )
    kernel = _constant(model, conv.input[1]).astype(np.float64)  # [filters, 3, height, width]
    share = (kernel * offset[:, None, None]).sum(1, keepdims=True) / INDICATOR
    folded = np.concatenate([kernel * scale[:, None, None], share], axis=1).astype(np.float32)
    _set(model, conv.input[1], folded)
    for name, value in {
        "indicator": np.full((1, 1, 1, 1), INDICATOR, np.uint8),
        "indicator_shape": np.array([*_image_shape(model)[:2], 1], np.int64),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    begin = [
        helper.make_node("Shape", [INPUT_NAME], ["image_count"], "image_count", start=0, end=1),
        helper.make_node(
            "Concat", ["image_count", "indicator_shape"], ["indicators_shape"], "indicators_shape", axis=0
        ),
        helper.make_node("Expand", ["indicator", "indicators_shape"], ["indicators"], "indicators"),
        # not Pad, which takes four times as long
        helper.make_node("Concat", [INPUT_NAME, "indicators"], ["image_indicated"], "image_indicated", axis=3),
        helper.make_node(
            "Transpose", ["image_indicated"], ["image_channels_first"], "image_channels_first", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Cast", ["image_channels_first"], [STEM_INPUT], STEM_INPUT, to=onnx.TensorProto.FLOAT),
    ]
    conv.input[0] = STEM_INPUT
    _replace(model, [cast, mul, add, transpose], begin)


def tidy(model: onnx.ModelProto) -> None:
    """Moves padding into the pooling that follows, whose input is never below zero; takes the mean in place."""
    made_by = {node.output[0]: node for node in model.graph.node}
    for pool in _nodes(model, "MaxPool"):
        pad = made_by.get(pool.input[0])
        if pad is not None and pad.op_type == "Pad":
            pads = _constant(model, pad.input[1]).tolist()
            pool.input[0] = pad.input[0]
            _set_attribute(pool, "pads", pads[2:4] + pads[6:8])
            _replace(model, [pad], [])
    for mean in _nodes(model, "ReduceMean"):
        transpose = made_by.get(mean.input[0])
        if transpose is not None and transpose.op_type == "Transpose":
            output = mean.output[0]
            pooled = [
                helper.make_node("GlobalAveragePool", [transpose.input[0]], [f"{output}_4d"], f"{mean.name}_pool"),
                helper.make_node("Flatten", [f"{output}_4d"], [output], f"{mean.name}_flatten"),
            ]
            _replace(model, [transpose, mean], pooled)


def feed_pixels(model: onnx.ModelProto) -> None:
    """Takes the pixels as the quantised input that they are: without the Cast and QuantizeLinear (scale 1) before it.

    Raises GraphError.
    """
    cast = next((node for node in model.graph.node if node.output[0] == STEM_INPUT), None)
    quantized = [node for node in _nodes(model, "QuantizeLinear") if node.input[0] == STEM_INPUT]
    if cast is None:
        raise GraphError(f"the graph should have {STEM_INPUT}, as fold_normalization leaves it")
    for node in quantized:
        if _constant(model, node.input[1]) != 1 or _constant(model, node.input[2]) != 0:
            raise GraphError(f"{STEM_INPUT} should be quantised with scale 1 and zero point 0")
        for reader in model.graph.node:
            if reader.input and reader.input[0] == node.output[0]:
                reader.input[0] = cast.input[0]
    unread = [] if any(STEM_INPUT in node.input for node in model.graph.node if node not in quantized) else [cast]
    if gone := [*unread, *quantized]:
        _replace(model, gone, [])
    drop_leftovers(model)


def split_groups(model: onnx.ModelProto, most: int) -> None:
    """Makes each quantised convolution of up to `most` groups into one convolution a group, on its channels: exact.

    ONNX Runtime has a kernel that reads windows where they lie, but not for groups: of those it copies them all first.
    """
    made_by = {node.output[0]: node for node in model.graph.node}
    for conv in _nodes(model, "Conv"):
        groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
        sources = [made_by.get(name) for name in conv.input]
        readers = [node for node in model.graph.node if conv.output[0] in node.input]
        if not 1 < groups <= most or [node.op_type for node in readers] != ["QuantizeLinear"]:
            continue
        cell = [node for node in sources if node is not None and node.op_type == "DequantizeLinear"]
        if len(cell) == len(conv.input):
            _replace(model, readers, _split(model, [*cell, conv, *readers], groups))
    drop_leftovers(model)


def halve(model: onnx.ModelProto) -> None:
    """Computes in float16 from the first convolution to the last: half the bytes, and the units of a GPU for it.

    Normalisation stays float32, and so do the mean, logits and softmax: float16 has 2048 steps between 0.5 and 1.
    Raises GraphError.
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
    _insert_before(model, stem, begin)
    _insert_before(model, mean, end)
    drop_leftovers(model)


def widen(model: onnx.ModelProto) -> None:
    """Lets a CPU answer as a GPU does with a graph that was halved: sums in float32, each result rounded to float16.

    ONNX Runtime's CPU provider has next to no float16 kernels. It computes such a graph in float32 and takes out the
    rounding between two nodes, and with it what would have become infinite.
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


def drop_leftovers(model: onnx.ModelProto) -> None:
    """Removes nodes and constants that nothing reads, and shapes that were true of the old graph."""
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


def _split(model: onnx.ModelProto, cell: list[onnx.NodeProto], groups: int) -> list[onnx.NodeProto]:
    """The cell of a quantised convolution (what it reads, itself, what quantises its output), once for each group."""
    source, target, filters = cell[0].input[0], cell[-1].output[0], len(_constant(model, cell[1].input[0]))
    inner = {node.output[0] for node in cell}
    slices = [f"{target}_in_{i}" for i in range(groups)]
    parts = [helper.make_node("Split", [source], slices, f"{target}_split", axis=1, num_outputs=groups)]

    def input_of(name: str, i: int) -> str:
        if name == source:
            return slices[i]
        if name in inner:
            return f"{name}_{i}"
        value = _constant(model, name)
        if value.shape[:1] != (filters,):  # one for all
            return name
        part = f"{name}_{i}"
        model.graph.initializer.append(numpy_helper.from_array(np.split(value, groups)[i], part))
        return part

    for i in range(groups):
        for node in cell:
            part = onnx.NodeProto()
            part.CopyFrom(node)
            part.name = f"{node.name}_{i}"
            part.input[:] = [input_of(name, i) for name in node.input]
            part.output[0] = f"{node.output[0]}_{i}"
            for attribute in part.attribute:
                if attribute.name == "group":
                    attribute.i = 1
            parts.append(part)
    whole = [f"{target}_{i}" for i in range(groups)]
    return [*parts, helper.make_node("Concat", whole, [target], f"{target}_concat", axis=1)]


def _joined(groups: int, most: int) -> int:
    """How many groups become one: the largest divisor of their number that is at most `most`, at least 1."""
    return max((n for n in range(1, groups + 1) if groups % n == 0 and n <= most), default=1)


def _nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return tensor
    raise GraphError(f"{name} should be a constant of the graph")


def _constant(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    value: NDArray[np.float32] = numpy_helper.to_array(_tensor(model, name))
    return value


def _set(model: onnx.ModelProto, name: str, value: NDArray[np.float32]) -> None:
    _tensor(model, name).CopyFrom(numpy_helper.from_array(value, name))


def _half_constant(model: onnx.ModelProto, name: str) -> str:
    """The name of a float16 copy of a constant: other nodes may read the constant too."""
    copy = f"{name}_float16"
    if copy not in {tensor.name for tensor in model.graph.initializer}:
        with np.errstate(over="ignore"):  # infinity, as the accuracy will show
            value = _constant(model, name).astype(np.float16)
        model.graph.initializer.append(numpy_helper.from_array(value, copy))
    return copy


def _set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in node.attribute if a.name not in (name, "auto_pad")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _replace(model: onnx.ModelProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
    """New nodes where the first of the old ones stood."""
    at = next(i for i, node in enumerate(model.graph.node) if node.output[0] == old[0].output[0])
    gone = {node.output[0] for node in old}
    rest = [node for node in model.graph.node if node.output[0] not in gone]
    nodes = [*rest[:at], *new, *rest[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _insert_before(model: onnx.ModelProto, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
    at = next(i for i, other in enumerate(model.graph.node) if other.output[0] == node.output[0])
    model.graph.node.insert(at, new)


def _image_shape(model: onnx.ModelProto) -> list[int]:
    """Height, width, channels of the input."""
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
