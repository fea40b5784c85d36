"""A head in an exported graph."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.training.conftest import Trained
from training.exported.classifier import onnx_classifier
from training.exported.editing import GraphError
from training.heads.features import extractor
from training.heads.folding import Head, read_head, set_head, write_head
from training.heads.regression import probabilities_of


@pytest.fixture(scope="module")
def images(trained: Trained) -> NDArray[np.uint8]:
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        found: NDArray[np.uint8] = golden["images"]
    return found


def head(width: int, classes: int) -> Head:
    rng = np.random.default_rng(0)
    return Head(rng.normal(size=(width, classes)).astype(np.float32), rng.normal(size=classes).astype(np.float32))


@pytest.mark.parametrize("file", ["model.onnx", "model.cpu.onnx", "model.int8.onnx", "model.fp16.onnx"])
def test_every_variant_takes_another_head(
    trained: Trained, images: NDArray[np.uint8], tmp_path: Path, file: str
) -> None:
    """The graph gives the probabilities that the head computes from the graph's own features."""
    model = onnx.load(trained.repository.path(1) / file)
    features = extractor(onnx.load(trained.repository.path(1) / file))(images)
    new = head(features.shape[1], 3)
    set_head(model, new, ["猫", "b", "c"])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / file)
    np.testing.assert_allclose(onnx_classifier(tmp_path / file)(images), probabilities_of(new, features), atol=1e-6)
    meta = onnxruntime.InferenceSession(tmp_path / file, providers=["CPUExecutionProvider"]).get_modelmeta()
    assert "猫" in meta.custom_metadata_map["labels"]
    assert "preprocessing" in meta.custom_metadata_map


def test_a_graph_of_another_form_is_refused(trained: Trained) -> None:
    model = onnx.load(trained.repository.path(1) / "model.onnx")
    softmax = model.graph.node[-1]
    softmax.op_type = "Sigmoid"
    with pytest.raises(GraphError, match="should end with MatMul, Add and Softmax"):
        set_head(model, head(64, 3), ["a", "b", "c"])


def test_a_head_on_disk(tmp_path: Path) -> None:
    made = head(8, 3)
    write_head(tmp_path / "head.npz", made)
    read = read_head(tmp_path / "head.npz")
    np.testing.assert_array_equal(read.kernel, made.kernel)
    np.testing.assert_array_equal(read.bias, made.bias)
    assert [path.name for path in tmp_path.iterdir()] == ["head.npz"]
