"""The rewrites change the graph and not its answers, also where the zero padding meets the border of a bright image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.training.conftest import Trained
from tests.training.exported.spoilt import spoil
from training.exported import editing, fp16, rewrite
from training.exported.classifier import Probabilities, onnx_classifier

Rewrite = Callable[[onnx.ModelProto], None]


@pytest.fixture
def model(trained: Trained) -> onnx.ModelProto:
    return onnx.load(trained.repository.path(1) / "model.onnx")


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, 32, 32, 3), np.uint8)
    return np.concatenate([noise, np.full((1, 32, 32, 3), 255, np.uint8), np.zeros((1, 32, 32, 3), np.uint8)])


def answers(model: onnx.ModelProto, images: NDArray[np.uint8], folder: Path) -> Probabilities:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    return onnx_classifier(folder / "model.onnx")(images)


def groups(model: onnx.ModelProto) -> list[int]:
    return [a.i for node in model.graph.node for a in node.attribute if node.op_type == "Conv" and a.name == "group"]


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "rewrite",
    [rewrite.fold_normalization, rewrite.tidy, lambda model: rewrite.merge_groups(model, 8), editing.drop_leftovers],
    ids=["fold_normalization", "tidy", "merge_groups", "drop_leftovers"],
)
def test_answers_stay(model: onnx.ModelProto, images: NDArray[np.uint8], tmp_path: Path, rewrite: Rewrite) -> None:
    before = answers(model, images, tmp_path)
    rewrite(model)
    np.testing.assert_allclose(answers(model, images, tmp_path), before, atol=1e-5)


def test_all_of_it_together_changes_nothing_but_rounding(
    model: onnx.ModelProto, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    before = answers(model, images, tmp_path)
    rewrite.rewrite_for_cpus(model, 16)
    np.testing.assert_allclose(answers(model, images, tmp_path), before, rtol=0, atol=1e-5)
    assert not {"Mul", "Pad", "ReduceMean"} & set(kinds(model))
    assert set(groups(model)) == {1, 2}  # of 4 channels joined to one of 16, of 8 to two


def test_groups_are_joined_up_to_the_width(model: onnx.ModelProto) -> None:
    """The small network has 4 groups of 4 channels, then 4 of 8."""
    narrow = [count for count in groups(model) if count > 1]
    assert narrow == [4, 4]
    rewrite.merge_groups(model, 8)
    assert [count for count in groups(model) if count > 1] == [2, 4]
    rewrite.merge_groups(model, 32)
    assert set(groups(model)) == {1}


def test_a_merged_kernel_has_the_old_one_on_its_diagonal() -> None:
    kernel = np.arange(1, 13, dtype=np.float32).reshape(6, 2, 1, 1)  # 3 groups: 2 filters and 2 channels each
    merged = rewrite.block_diagonal(kernel, groups=3, merged=3)[:, :, 0, 0]
    expected = np.zeros((6, 6), np.float32)
    for group in range(3):
        block = slice(2 * group, 2 * group + 2)
        expected[block, block] = kernel[block, :, 0, 0]
    np.testing.assert_array_equal(merged, expected)


def test_normalisation_and_layout_leave_the_graph(model: onnx.ModelProto) -> None:
    assert {"Mul", "Pad", "ReduceMean"} <= set(kinds(model))
    rewrite.fold_normalization(model)
    rewrite.tidy(model)
    assert not {"Mul", "Pad", "ReduceMean"} & set(kinds(model))
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 1  # the image's own


def test_a_graph_that_was_not_exported_here_is_refused(model: onnx.ModelProto) -> None:
    rewrite.fold_normalization(model)
    with pytest.raises(editing.GraphError, match="should begin with Cast, Mul, Add, Transpose, Conv"):
        rewrite.rewrite_for_cpus(model, 16)


def test_float16_holds_what_lies_between_the_normalisation_and_the_mean(model: onnx.ModelProto) -> None:
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
