"""Rewrites of an exported ONNX graph that change its speed but not its answers.

ONNX Runtime's INT8 convolution on a CPU copies its input once for each group and multiplies in blocks of 16 to 32
channels: the narrow groups of a ResNeXt cost more than all its 1x1 convolutions. Once the convolutions are cheap, the
operations in between (normalization, padding, layout) become costly too. In float32 the kernels want groups of 16
channels, and change the layout before and after each convolution with narrower groups.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.contract.manifest import INPUT_NAME
from training.exported.editing import (
    GraphError,
    constant_of,
    drop_leftovers,
    image_shape,
    nodes_of,
    replace_nodes,
    set_attribute,
    set_constant,
)

INDICATOR = 255  # value of the fourth channel: that of a bright pixel, so that its weights are as large as the others
STEM_INPUT = "image_float"  # input of the first convolution: uint8 values as float


def rewrite_for_cpus(model: onnx.ModelProto, width: int) -> None:
    """Applies all rewrites that make ONNX Runtime faster on a CPU, with groups of `width` channels.

    Answers stay the same up to rounding. Raises GraphError.
    """
    fold_normalization(model)
    tidy(model)
    merge_groups(model, width)
    drop_leftovers(model)


def merge_groups(model: onnx.ModelProto, width: int) -> None:
    """Joins neighboring groups of each convolution until each has `width` channels or one is left.

    This is exact: the merged kernel is block-diagonal and adds only products with zero.
    """
    for node in nodes_of(model, "Conv"):
        group = next((a for a in node.attribute if a.name == "group"), None)
        if group is None or group.i == 1:
            continue
        kernel = constant_of(model, node.input[1])  # [filters, channels of a group, height, width]
        narrow = kernel.shape[1]
        merged = _joined(group.i, width // narrow)
        if merged > 1:
            set_constant(model, node.input[1], block_diagonal(kernel, group.i, merged))
            group.i //= merged


def block_diagonal(kernel: NDArray[np.float32], groups: int, merged: int) -> NDArray[np.float32]:
    """Returns a kernel [F, c, h, w] of `groups` groups as one of groups / merged: [F, c * merged, h, w] with zeros."""
    filters, narrow = kernel.shape[:2]
    wide = np.zeros((filters, narrow * merged, *kernel.shape[2:]), kernel.dtype)
    for start in range(0, filters, filters // groups):
        block = start * groups // filters % merged * narrow
        wide[start : start + filters // groups, block : block + narrow] = kernel[start : start + filters // groups]
    return wide


def fold_normalization(model: onnx.ModelProto) -> None:
    """Moves `image * scale + offset` into the first convolution, exactly, also at its zero-padded border.

    The original graph pads after normalization, so the padding has no offset; an offset inside the kernel would apply
    to the padding too. Therefore the image gets a fourth channel of one value, padded with zero like the others, whose
    weights add the offset. Raises GraphError.
    """
    nodes = list(model.graph.node[:5])
    if [node.op_type for node in nodes] != ["Cast", "Mul", "Add", "Transpose", "Conv"]:
        raise GraphError("the graph should begin with Cast, Mul, Add, Transpose, Conv, as the export writes it")
    cast, mul, add, transpose, conv = nodes
    scale, offset = (
        np.broadcast_to(constant_of(model, node.input[1]).astype(np.float64).ravel(), 3) for node in (mul, add)
    )
    kernel = constant_of(model, conv.input[1]).astype(np.float64)  # [filters, 3, height, width]
    share = (kernel * offset[:, None, None]).sum(1, keepdims=True) / INDICATOR
    folded = np.concatenate([kernel * scale[:, None, None], share], axis=1).astype(np.float32)
    set_constant(model, conv.input[1], folded)
    for name, value in {
        "indicator": np.full((1, 1, 1, 1), INDICATOR, np.uint8),
        "indicator_shape": np.array([*image_shape(model)[:2], 1], np.int64),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    begin = [
        helper.make_node("Shape", [INPUT_NAME], ["image_count"], "image_count", start=0, end=1),
        helper.make_node(
            "Concat", ["image_count", "indicator_shape"], ["indicators_shape"], "indicators_shape", axis=0
        ),
        helper.make_node("Expand", ["indicator", "indicators_shape"], ["indicators"], "indicators"),
        # Pad would take four times as long
        helper.make_node("Concat", [INPUT_NAME, "indicators"], ["image_indicated"], "image_indicated", axis=3),
        helper.make_node(
            "Transpose", ["image_indicated"], ["image_channels_first"], "image_channels_first", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Cast", ["image_channels_first"], [STEM_INPUT], STEM_INPUT, to=onnx.TensorProto.FLOAT),
    ]
    conv.input[0] = STEM_INPUT
    replace_nodes(model, [cast, mul, add, transpose], begin)


def tidy(model: onnx.ModelProto) -> None:
    """Moves padding into the max-pool after it, whose input is never below zero; takes the mean without a transpose."""
    made_by = {node.output[0]: node for node in model.graph.node}
    for pool in nodes_of(model, "MaxPool"):
        pad = made_by.get(pool.input[0])
        if pad is not None and pad.op_type == "Pad":
            pads = constant_of(model, pad.input[1]).tolist()
            pool.input[0] = pad.input[0]
            set_attribute(pool, "pads", pads[2:4] + pads[6:8])
            replace_nodes(model, [pad], [])
    for mean in nodes_of(model, "ReduceMean"):
        transpose = made_by.get(mean.input[0])
        if transpose is not None and transpose.op_type == "Transpose":
            output = mean.output[0]
            pooled = [
                helper.make_node("GlobalAveragePool", [transpose.input[0]], [f"{output}_4d"], f"{mean.name}_pool"),
                helper.make_node("Flatten", [f"{output}_4d"], [output], f"{mean.name}_flatten"),
            ]
            replace_nodes(model, [transpose, mean], pooled)


def feed_pixels(model: onnx.ModelProto) -> None:
    """Feeds pixels directly as quantized input, without the Cast and the QuantizeLinear of scale 1.

    Raises GraphError.
    """
    cast = next((node for node in model.graph.node if node.output[0] == STEM_INPUT), None)
    quantized = [node for node in nodes_of(model, "QuantizeLinear") if node.input[0] == STEM_INPUT]
    if cast is None:
        raise GraphError(f"the graph should have {STEM_INPUT}, as fold_normalization leaves it")
    for node in quantized:
        if constant_of(model, node.input[1]) != 1 or constant_of(model, node.input[2]) != 0:
            raise GraphError(f"{STEM_INPUT} should be quantized with scale 1 and zero point 0")
        for reader in model.graph.node:
            if reader.input and reader.input[0] == node.output[0]:
                reader.input[0] = cast.input[0]
    unread = [] if any(STEM_INPUT in node.input for node in model.graph.node if node not in quantized) else [cast]
    if gone := [*unread, *quantized]:
        replace_nodes(model, gone, [])
    drop_leftovers(model)


def split_groups(model: onnx.ModelProto, most: int) -> None:
    """Splits each quantized convolution of up to `most` groups into one convolution for each group. This is exact.

    ONNX Runtime has a kernel that reads windows in place, but not for groups: for these it copies all windows first.
    """
    made_by = {node.output[0]: node for node in model.graph.node}
    for conv in nodes_of(model, "Conv"):
        groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
        sources = [made_by.get(name) for name in conv.input]
        readers = [node for node in model.graph.node if conv.output[0] in node.input]
        if not 1 < groups <= most or [node.op_type for node in readers] != ["QuantizeLinear"]:
            continue
        cell = [node for node in sources if node is not None and node.op_type == "DequantizeLinear"]
        if len(cell) == len(conv.input):
            replace_nodes(model, readers, _split(model, [*cell, conv, *readers], groups))
    drop_leftovers(model)


def _split(model: onnx.ModelProto, cell: list[onnx.NodeProto], groups: int) -> list[onnx.NodeProto]:
    """Returns the nodes that do a quantized convolution (dequantize, convolve, quantize) once for each group."""
    source, target, filters = cell[0].input[0], cell[-1].output[0], len(constant_of(model, cell[1].input[0]))
    inner = {node.output[0] for node in cell}
    slices = [f"{target}_in_{i}" for i in range(groups)]
    parts = [helper.make_node("Split", [source], slices, f"{target}_split", axis=1, num_outputs=groups)]

    def input_of(name: str, i: int) -> str:
        if name == source:
            return slices[i]
        if name in inner:
            return f"{name}_{i}"
        value = constant_of(model, name)
        if value.shape[:1] != (filters,):  # one value for all groups
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
    """Returns how many groups become one: the largest divisor of their number that is at most `most`, at least 1."""
    return max((n for n in range(1, groups + 1) if groups % n == 0 and n <= most), default=1)
