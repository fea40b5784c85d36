"""The graph in float16: what becomes float16, and that a CPU sees what a GPU would round or lose."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.training.exported.graphs import answers, kinds
from tests.training.exported.spoilt import spoil
from training.exported import editing, fp16


def test_float16_holds_what_lies_between_the_normalization_and_the_mean(model: onnx.ModelProto) -> None:
    fp16.halve(model)
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    half = [node.op_type for node in model.graph.node if types.get(node.output[0]) == onnx.TensorProto.FLOAT16]
    assert {"Conv", "Relu", "Add", "MaxPool"} <= set(half)
    assert half.count("Conv") == kinds(model).count("Conv")
    assert not {"Mul", "ReduceMean", "MatMul", "Softmax"} & set(half)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_rounding_to_float16_is_seen_on_a_cpu_once_it_is_widened(
    model: onnx.ModelProto, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    """A sum above 65504 is infinite on a GPU; ONNX Runtime's CPU provider would keep it, in float32."""
    path = tmp_path / "spoilt.onnx"
    onnx.save(model, path)
    spoil(path, "stage1_block1_conv2", "stage1_block1_conv3", factor=3e4)
    spoilt = onnx.load(path)
    fp16.halve(spoilt)
    assert np.isfinite(answers(spoilt, images, tmp_path)).all()
    fp16.widen(spoilt)
    assert not np.isfinite(answers(spoilt, images, tmp_path)).all()


def test_widening_changes_no_more_than_the_rounding(
    model: onnx.ModelProto, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    before = answers(model, images, tmp_path)
    fp16.halve(model)
    fp16.widen(model)
    after = answers(model, images, tmp_path)
    assert 0 < np.abs(after - before).max() < 0.02


def test_a_graph_without_convolutions_is_not_halved(model: onnx.ModelProto) -> None:
    del model.graph.node[4:]
    with pytest.raises(editing.GraphError, match="should have convolutions and one mean after them"):
        fp16.halve(model)
