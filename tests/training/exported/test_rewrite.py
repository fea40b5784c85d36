"""The rewrites change the graph and not its answers, also where the zero padding meets the border of a bright image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.training.exported.graphs import answers, kinds
from training.exported import editing, rewrite

Rewrite = Callable[[onnx.ModelProto], None]


def groups(model: onnx.ModelProto) -> list[int]:
    return [a.i for node in model.graph.node for a in node.attribute if node.op_type == "Conv" and a.name == "group"]


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


def test_normalization_and_layout_leave_the_graph(model: onnx.ModelProto) -> None:
    assert {"Mul", "Pad", "ReduceMean"} <= set(kinds(model))
    rewrite.fold_normalization(model)
    rewrite.tidy(model)
    assert not {"Mul", "Pad", "ReduceMean"} & set(kinds(model))
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 1  # the image's own


def test_a_graph_that_was_not_exported_here_is_refused(model: onnx.ModelProto) -> None:
    rewrite.fold_normalization(model)
    with pytest.raises(editing.GraphError, match="should begin with Cast, Mul, Add, Transpose, Conv"):
        rewrite.rewrite_for_cpus(model, 16)
