import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.cells import cell_len
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from training.contract.manifest import SplitMetrics
from training.exported.evaluate import MISTAKES, Evaluation, evaluate

DIGITS = ["零", "one", "いち", "3", "넷", "five", "[red]", "seven", "八", "九"]


def files(count: int) -> list[str]:
    return [f"val/{i}.png" for i in range(count)]


def real_predictions() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """True classes [897] and probabilities [897, 10] of a weak classifier on real digits: it must make mistakes."""
    digits = load_digits()
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.9).fit(digits.data[:900], digits.target[:900])
    # a temperature of 10, so that no probability is below the floor of the loss
    return digits.target[900:], softmax(model.decision_function(digits.data[900:]) / 10, axis=1).astype(np.float32)


def test_figures_are_scikit_learns_on_real_digits() -> None:
    true, probabilities = real_predictions()
    result = evaluate(DIGITS, true, probabilities, files(len(true)))
    predicted = probabilities.argmax(axis=1)
    assert result.images == 897
    assert result.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert result.loss == pytest.approx(log_loss(true, probabilities), rel=1e-4)
    assert result.top5_accuracy == pytest.approx(top_k_accuracy_score(true, probabilities, k=5))
    assert result.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert [c.f1 for c in result.classes] == pytest.approx(f1_score(true, predicted, average=None).tolist())
    assert [c.support for c in result.classes] == np.bincount(true).tolist()
    assert result.metrics() == SplitMetrics(
        images=897, loss=result.loss, accuracy=result.accuracy, top5_accuracy=result.top5_accuracy
    )


def test_mistakes_are_the_most_confident_wrong_ones() -> None:
    true, probabilities = real_predictions()
    result = evaluate(DIGITS, true, probabilities, files(len(true)))
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    assert len(result.mistakes) == MISTAKES < len(wrong)
    worst = wrong[probabilities[wrong].max(axis=1).argmax()]
    first = result.mistakes[0]
    assert first.file == f"val/{worst}.png"
    assert first.true == DIGITS[true[worst]]
    assert first.predicted == DIGITS[probabilities[worst].argmax()]
    assert first.probability == pytest.approx(probabilities[worst].max())
    assert first.true_probability == pytest.approx(probabilities[worst, true[worst]])
    given = [mistake.probability for mistake in result.mistakes]
    assert given == sorted(given, reverse=True)


def test_confusion_has_true_rows_and_predicted_columns() -> None:
    probabilities = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0, 0.3, 0.7]], dtype=np.float32)
    result = evaluate(["a", "b", "c"], np.array([0, 1, 2]), probabilities, files(3))
    assert result.confusion == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert (result.classes[1].precision, result.classes[1].recall) == (0.5, 1.0)


def test_class_without_images_neither_warns_nor_lowers_the_macro_average() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]], dtype=np.float32)
    result = evaluate(["a", "b", "absent"], np.array([0, 1]), probabilities, files(2))
    assert result.classes[2].model_dump() == {"label": "absent", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert (result.macro_precision, result.macro_recall, result.macro_f1) == (1, 1, 1)
    assert len(result.confusion) == 3
    shown = result.render()
    assert "absent" not in shown  # of ImageNet's classes a folder has a few
    assert re.search(r"classes without images +1\n", shown)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    # ten images at 0.8, eight of them right: calibrated; ten at 1.0, five right: off by a half
    probabilities = np.repeat(np.array([[0.8, 0.2], [1.0, 0.0]], dtype=np.float32), 10, axis=0)
    true = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    result = evaluate(["a", "b"], true, probabilities, files(20))
    assert result.calibration_error == pytest.approx(0.25, abs=1e-6)


def test_top5_of_few_classes_and_of_equal_probabilities() -> None:
    probabilities = np.full((8, 8), 1 / 8, dtype=np.float32)
    result = evaluate(list("abcdefgh"), np.arange(8), probabilities, files(8))
    assert result.accuracy == 1 / 8  # argmax takes the first
    assert result.top5_accuracy == 5 / 8
    two = evaluate(["a", "b"], np.array([0, 1]), np.array([[0, 1], [1, 0]], dtype=np.float32), files(2))
    assert (two.accuracy, two.top5_accuracy) == (0, 1)


def test_loss_of_a_truth_given_nothing_is_finite() -> None:
    result = evaluate(["a", "b"], np.array([1]), np.array([[1, 0]], dtype=np.float32), files(1))
    assert result.loss == pytest.approx(16.118, abs=1e-3)


def test_json_round_trip_keeps_all_and_any_file_name() -> None:
    true, probabilities = real_predictions()
    result = evaluate(DIGITS, true, probabilities, files(len(true)))
    assert Evaluation.model_validate_json(result.model_dump_json()) == result
    name = Path(os.fsdecode(b"val/\xc3\xa8\xff.png"))
    alone = evaluate(["a", "b"], np.array([1]), np.array([[1, 0]], dtype=np.float32), [name])
    assert json.loads(alone.model_dump_json())["mistakes"][0]["file"] == "val/è\ufffd.png"


@pytest.mark.parametrize("width", [50, 100])
def test_rendering_is_aligned_for_wide_characters_and_takes_markup_literally(width: int) -> None:
    true, probabilities = real_predictions()
    labels = ["すごく長い名前" * 12, *DIGITS[1:]]
    text = evaluate(labels, true, probabilities, files(len(true))).render(width)
    table = [line for line in text.splitlines() if line[0] in "┏┃┡│├└"]
    assert len({cell_len(line) for line in table}) == 1
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert text.count("長") == 12  # a name too long goes on in the next line
    for shown in ("[red]", "いち", "넷", "precision", "macro", "top-5 accuracy", "calibration error", "897"):
        assert shown in text
    assert "\x1b" not in text


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one image, got 0"):
        evaluate(["a", "b"], np.zeros(0, np.int64), np.zeros((0, 2), np.float32), [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.6], r"sum to 1; those of val/1\.png sum to 1\.1"),
        ([97.0, 3.0], r"val/1\.png sum to 100"),
        ([1.5, -0.5], r"at least 0 .* the least is -0\.5"),
        ([float("nan"), 1.0], r"1 images have NaN or infinity, first val/1\.png"),
        ([float("inf"), 0.0], r"NaN or infinity, first val/1\.png"),
    ],
)
def test_rows_that_are_no_probabilities_name_their_file(row: list[float], message: str) -> None:
    probabilities = np.array([[0.5, 0.5], row], dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        evaluate(["a", "b"], np.array([0, 1]), probabilities, files(2))


@pytest.mark.parametrize(
    ("true", "classes", "names", "message"),
    [
        (np.array([0, 2]), 2, 2, r"should be 0 to 1, they are 0 to 2"),
        (np.array([-1, 0]), 2, 2, r"should be 0 to 1, they are -1 to 0"),
        (np.eye(2), 2, 2, r"should be int \[N\], they are float64 \[2, 2\]"),
        (np.array([0, 1]), 3, 2, r"shape \[2 images, 2 classes\], they have \[2, 3\]"),
        (np.array([0, 1]), 2, 3, r"each of 2 images should have a file name, there are 3"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(true: NDArray[np.int64], classes: int, names: int, message: str) -> None:
    probabilities = np.full((2, classes), 1 / classes, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        evaluate(["a", "b"], true, probabilities, files(names))
