"""The copy of the graph that a CPU serves: proven, published, and left out where it is not as good."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console

from tests.training.conftest import Trained
from tests.training.phases.runs import verified
from training.contract.manifest import CPU_FILE, INT8_FILE, MODEL_FILE
from training.exported.classifier import onnx_classifier, published, read_folder
from training.phases.images import images_of
from training.phases.verify import verify, why_left_out
from training.runs.console import ProgressLog


def test_what_a_cpu_serves_is_in_the_version_and_answers_as_the_exported_model(trained: Trained, digits: Path) -> None:
    folder, variants = trained.repository.path(1), trained.manifest.variants
    fp32 = variants["fp32"]
    assert (fp32.file, fp32.cpu_file) == (MODEL_FILE, CPU_FILE)
    assert (fp32.file_on("cpu"), fp32.file_on("cuda"), fp32.file_on("openvino")) == (CPU_FILE, MODEL_FILE, MODEL_FILE)
    assert variants["int8"].file_on("cpu") == INT8_FILE
    assert CPU_FILE in trained.manifest.files
    assert "labels" in {p.key for p in onnx.load(folder / CPU_FILE).metadata_props}
    manifest, classify = published(trained.repository, 1)
    images, _, _ = read_folder(digits, manifest)
    exported = onnx_classifier(folder / MODEL_FILE)(images)
    np.testing.assert_allclose(classify(images), exported, rtol=0, atol=1e-5)
    assert (classify(images) != exported).any()  # it is the other file


def test_a_copy_that_is_off_is_left_out_and_nan_is_off() -> None:
    exported = np.array([[0.9, 0.1]], np.float32)
    assert why_left_out(exported, exported + np.float32(5e-6)) is None
    why = why_left_out(exported, exported - np.float32(2e-5))
    assert why
    assert "within 1e-05 of model.onnx's on 1 images, they differ by up to 2e-05" in why
    assert why_left_out(exported, exported * np.float32("nan"))


def lift(path: Path, by: float) -> None:
    """Makes all logits so much larger alike: softmax does not care, but for what is rounded off them."""
    model = onnx.load(path)
    (logits,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == logits.input[1])
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(by), weights.name))
    onnx.save(model, path)


def test_rounding_that_is_seen_leaves_the_copy_out_and_not_the_version(trained: Trained, tmp_path: Path) -> None:
    run = verified(trained, tmp_path / "run")
    lift(run.package / MODEL_FILE, 1e3)
    val = images_of(run, "val")["val"]
    np.save(run.reference, onnx_classifier(run.package / MODEL_FILE)(val.images))
    record = verify(run, ProgressLog(run.progress, Console(quiet=True)))
    assert record.variants["fp32"].cpu_file is None
    (note,) = record.notes
    assert note.startswith(
        f"{CPU_FILE} is left out: its probabilities should be within 1e-05 of {MODEL_FILE}'s on 128 "
    )
    assert not (run.package / CPU_FILE).exists()


def test_verified_again_after_a_crash_it_is_there_again(trained: Trained, tmp_path: Path) -> None:
    run = verified(trained, tmp_path / "run")
    (run.package / CPU_FILE).unlink()
    assert verify(run, ProgressLog(run.progress, Console(quiet=True))).variants["fp32"].cpu_file == CPU_FILE
    assert (run.package / CPU_FILE).read_bytes() == (trained.repository.path(1) / CPU_FILE).read_bytes()
