"""The exported graph: one that any runtime takes, and that answers as Keras does."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training.conftest import Trained
from training.contract.manifest import Preprocessing
from training.datasets.layout import DatasetError
from training.exported.classifier import folder_to_measure, images_per_second, onnx_classifier, published, read_folder
from training.phases.verify import ParityError, compare


@pytest.fixture(scope="module")
def model_file(trained: Trained) -> Path:
    return trained.repository.path(1) / "model.onnx"


def test_input_and_output_are_the_contracts(model_file: Path) -> None:
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    (image,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [32, 32, 3])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert isinstance(image.shape[0], str | None)  # N is free


def test_the_batch_is_dynamic_and_rows_are_probabilities(model_file: Path) -> None:
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    together = session.run(None, {"image": images})[0]
    alone = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)


def test_labels_and_preprocessing_travel_in_the_file(trained: Trained, model_file: Path) -> None:
    properties = {p.key: p.value for p in onnx.load(model_file).metadata_props}
    assert json.loads(properties["labels"]) == trained.manifest.labels
    assert Preprocessing.model_validate_json(properties["preprocessing"]) == trained.manifest.preprocessing


def test_golden_images_are_real_and_their_answers_keras_own(trained: Trained, model_file: Path) -> None:
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        images, probabilities = golden["images"], golden["probabilities"]
    assert images.shape == (8, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 8
    np.testing.assert_allclose(onnx_classifier(model_file)(images), probabilities, atol=1e-4)


def test_parity_counts_and_measures() -> None:
    reference = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    parity = compare(reference, reference + np.float32(5e-5))
    assert (parity.images, parity.top1_equal) == (2, 2)
    assert parity.max_abs_difference == pytest.approx(5e-5, rel=1e-2)


def test_a_probability_that_is_off_is_refused() -> None:
    reference = np.array([[0.9, 0.1]], np.float32)
    with pytest.raises(ParityError, match=r"off by up to 0\.001"):
        compare(reference, reference + np.float32(1e-3))


def test_another_top_class_is_refused_though_the_probabilities_are_near() -> None:
    reference = np.array([[0.50002, 0.49998]], np.float32)
    with pytest.raises(ParityError, match="names the same class on 0"):
        compare(reference, reference[:, ::-1])


def test_a_tie_may_fall_either_way() -> None:
    reference = np.array([[0.5, 0.5]], np.float32)
    assert compare(reference, np.array([[0.4999999, 0.5000001]], np.float32)).top1_equal == 1


def test_a_probability_that_is_no_number_is_refused() -> None:
    reference = np.array([[0.9, 0.1]], np.float32)
    for other in (reference * np.float32("nan"), np.array([[0.9, np.nan]], np.float32)):
        with pytest.raises(ParityError, match="off by up to nan"):
            compare(reference, other)
        with pytest.raises(ParityError, match="off by up to nan"):
            compare(other, reference)


def test_a_published_version_measures_the_same_on_its_folder(trained: Trained, digits: Path) -> None:
    manifest, classify = published(trained.repository, 1)
    images, true, names = read_folder(digits, manifest)
    assert len(images) == len(names) == 1797
    assert (classify(images[:64]).argmax(1) == true[:64]).mean() > 0.5
    speeds = images_per_second([classify], images)
    assert speeds is None or speeds[0] > 0  # None where others keep the machine busy


def test_a_folder_of_other_classes_is_refused(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "1").mkdir()
    with pytest.raises(DatasetError, match="'cat'"):
        read_folder(tmp_path, trained.manifest)


def test_splits_without_a_test_are_refused(trained: Trained, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split / "1").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has splits and no test: name the folder whose images to measure on"):
        folder_to_measure(tmp_path, trained.manifest)


@pytest.mark.parametrize(
    ("layout", "split", "expected"),
    [
        ("ds/flowers/1/a.png ds/flowers/2/a.png ds/README", None, ("ds/flowers", False)),
        ("ds/1/deep/er/a.png", None, ("ds", False)),
        ("ds/my_train/my_train/1/a.png ds/my_test/my_test/1/a.png", None, ("ds/my_test/my_test", False)),
        ("ds/train/1/a.png ds/test/1/a.png", "train", ("ds/train", True)),
        ("ds/train/1/a.png ds/test/1/a.png", "val", ("ds/train", False)),  # it was dealt from there
    ],
)
def test_images_to_measure_on_are_found_where_a_training_finds_them(
    trained: Trained, tmp_path: Path, layout: str, split: str | None, expected: tuple[str, bool]
) -> None:
    for name in layout.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder, is_split = folder_to_measure(tmp_path / "ds", trained.manifest, split)
    assert (folder.relative_to(tmp_path).as_posix(), is_split) == expected


def test_a_pipe_is_not_opened(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "Testing" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "Testing" / "1" / "x.png")
    folder, _ = folder_to_measure(tmp_path, trained.manifest)
    with pytest.raises(DatasetError, match=r"1/x\.png  unreadable_file: it should be a file, it is a named pipe"):
        read_folder(folder, trained.manifest)
