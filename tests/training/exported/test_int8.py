"""INT8: what is quantized, and how it is chosen."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.training.conftest import Trained
from tests.training.exported.spoilt import spoil
from training.contract.manifest import INT8_FILE, MODEL_FILE
from training.datasets.loading import load, read_samples
from training.exported.classifier import Uint8Images, onnx_classifier
from training.exported.int8 import QuantizationSearch, Quantizer
from training.system.cpu import has_int8_dot_product


def test_a_version_has_an_int8_variant_that_is_as_good(trained: Trained) -> None:
    variants, folder = trained.manifest.variants, trained.repository.path(1)
    int8, fp32 = variants["int8"].accuracy, variants["fp32"].accuracy
    assert int8
    assert fp32
    assert int8 >= fp32 - trained.config.gate.precision_budget
    assert variants["int8"].calibration in ("minmax", "percentile", "entropy")
    assert INT8_FILE in trained.manifest.files
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_array_equal(
            onnx_classifier(folder / INT8_FILE)(golden["images"]), golden["probabilities_int8"]
        )


def calibration(trained: Trained, folder: Path) -> Uint8Images:
    """64 of the training images."""
    return load(read_samples(trained.run.samples), trained.config.preprocessing, folder, ("train",))["train"].images[
        :64
    ]


def quantizer(trained: Trained, folder: Path, model: Path | None = None) -> Quantizer:
    return Quantizer(model or trained.run.package / MODEL_FILE, calibration(trained, folder), folder)


def test_every_convolution_is_int8_and_pixels_go_in_as_they_come(trained: Trained, tmp_path: Path) -> None:
    model = onnx.load(quantizer(trained, tmp_path).quantize("minmax"))
    made_by = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 9
    for node in convolutions:
        image, weight = made_by[node.input[0]], made_by[node.input[1]]
        assert image.op_type == weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == (len(constants[weight.input[0]]),)  # a scale for each channel
    assert not any(node.op_type == "Cast" for node in model.graph.node)
    assert "labels" in {p.key for p in model.metadata_props}


def test_a_convolution_of_few_groups_becomes_one_for_each(trained: Trained, tmp_path: Path) -> None:
    """Joined to 8 channels, the small network has convolutions of 2 and of 4 groups."""
    calibrating = calibration(trained, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    answers = {}
    for most, groups, convolutions in ((1, {1, 2, 4}, 9), (2, {1, 4}, 10), (4, {1}, 13)):
        int8 = Quantizer(trained.run.package / MODEL_FILE, calibrating, tmp_path, merged_width=8, split_groups=most)
        path = int8.quantize("minmax")
        nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
        assert {a.i for node in nodes for a in node.attribute if a.name == "group"} == groups
        assert len(nodes) == convolutions
        answers[most] = onnx_classifier(path)(images)
    np.testing.assert_array_equal(answers[2], answers[1])
    np.testing.assert_array_equal(answers[4], answers[1])


def test_no_weights_are_made_floats_in_each_run(trained: Trained) -> None:
    """ONNX Runtime does that with INT8 weights whose reader gives float32: it folds no DequantizeLinear."""
    model = onnx.load(trained.repository.path(1) / INT8_FILE)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    unpacked = [n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights]
    assert {node.op_type for node in model.graph.node if set(node.input) & set(unpacked)} == {"Conv"}
    (logits,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert weights[logits.input[1]].data_type == onnx.TensorProto.FLOAT


def test_probabilities_are_finer_than_eight_bits(trained: Trained) -> None:
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        probabilities = golden["probabilities_int8"]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert len(np.unique(probabilities)) == probabilities.size


def test_the_block_that_hurts_stays_float32(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(trained.run.package / MODEL_FILE, path)
    spoil(path, "stage1_block1_conv2", "stage1_block1_conv3")
    splits = load(read_samples(trained.run.samples), trained.config.preprocessing, tmp_path, ("val",))
    reference = onnx_classifier(path)(splits["val"].images)
    np.testing.assert_allclose(reference, np.load(trained.run.reference), atol=1e-4)
    val = splits["val"]
    search = QuantizationSearch(quantizer(trained, tmp_path, path), val.images, val.labels, reference)
    config = trained.config.model_copy(update={"int8": trained.config.int8.model_copy(update={"methods": ("minmax",)})})
    best = search.best(config)
    assert best.float_blocks[0] == "stage1_block1"
    all_int8 = onnx_classifier(search.quantizer.quantize("minmax"))(search.images)
    assert best.accuracy > search.accuracy_of(all_int8)


def test_weights_have_seven_bits_where_products_would_saturate(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx2 avx512f avx512_vnni\n")
    assert has_int8_dot_product("x86_64", cpuinfo)
    cpuinfo.write_text("flags : avx2 avx512f\n")
    assert not has_int8_dot_product("x86_64", cpuinfo)
    assert not has_int8_dot_product("x86_64", tmp_path / "missing")
    assert has_int8_dot_product("aarch64", tmp_path / "missing")
