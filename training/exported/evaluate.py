"""The evaluation of a classifier on one split: totals, each class, the confusion matrix, the worst mistakes.

It needs probabilities only, so the same code measures Keras, ONNX Runtime and a quantized variant.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training.contract.intervals import Proportion
from training.contract.manifest import SplitMetrics

WIDEST = 100  # width of a table in cells of the terminal
TOP_K = 5
CALIBRATION_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (2017)
MISTAKES = 25
LOSS_FLOOR = 1e-7  # Keras' epsilon: a true class with probability 0 costs 16.1, not infinity
SUM_TOLERANCE = 1e-2  # a float16 softmax over 1000 classes is off by about 1e-3, logits and percentages by far more


class ClassReport(BaseModel):
    """The figures of one class against all others. A figure that would divide by zero is 0."""

    model_config = ConfigDict(frozen=True)

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Mistake(BaseModel):
    """One image that was classified wrong, with the probabilities of the predicted and the true class."""

    model_config = ConfigDict(frozen=True)

    file: str
    true: str
    predicted: str
    probability: float
    true_probability: float


class Evaluation(BaseModel):
    """A classifier's figures on one split. Accuracies are fractions of 1, the loss is in nats."""

    model_config = ConfigDict(frozen=True)

    images: int
    loss: float
    accuracy: float
    top5_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    calibration_error: float
    classes: list[ClassReport]
    confusion: list[list[int]]
    mistakes: list[Mistake]

    def metrics(self) -> SplitMetrics:
        """Returns the totals in the form that the manifest has."""
        return SplitMetrics(
            images=self.images, loss=self.loss, accuracy=self.accuracy, top5_accuracy=self.top5_accuracy
        )

    def render(self, width: int = WIDEST) -> str:
        """Returns tables of the classes that have images and of the totals, at most `width` cells wide.

        A CJK character takes two cells.
        """
        console = Console(file=io.StringIO(), width=min(width, WIDEST), color_system=None)
        with console.capture() as capture:
            console.print(self._class_table(), self._totals())
        return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"

    def _class_table(self) -> Table:
        table = Table()
        # folded: if no column wraps, rich squeezes the figures to nothing for one long name
        table.add_column("class", overflow="fold")
        for heading in ("images", "precision", "recall", "F1"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in filter(_has_images, self.classes):
            # Text, because a label such as "[red]" is markup to rich
            table.add_row(
                Text(row.label), str(row.support), f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}"
            )
        table.add_section()
        table.add_row(
            "macro average",
            str(self.images),
            f"{self.macro_precision:.4f}",
            f"{self.macro_recall:.4f}",
            f"{self.macro_f1:.4f}",
        )
        return table

    def _totals(self) -> Table:
        totals = Table(box=None, show_header=False)
        totals.add_column(no_wrap=True)
        totals.add_column(justify="right", no_wrap=True)
        totals.add_row("accuracy", str(Proportion.of(self.accuracy, self.images)))
        if len(self.classes) > TOP_K:  # with fewer classes it is always 1
            totals.add_row(f"top-{TOP_K} accuracy", f"{self.top5_accuracy:.4f}")
        if empty := sum(not _has_images(row) for row in self.classes):
            totals.add_row("classes without images", str(empty))
        totals.add_row("loss", f"{self.loss:.4f}")
        totals.add_row("calibration error", f"{self.calibration_error:.4f}")
        return totals


def _has_images(row: ClassReport) -> bool:
    return row.support > 0


def evaluate(
    labels: Sequence[str],
    true: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    files: Sequence[str | Path],
) -> Evaluation:
    """Measures a classifier from its probabilities.

    `true` is int [N], the index of each image's class in `labels`. `probabilities` is float [N, classes]. `files` are
    the N images' names for the report. Among equal probabilities the class with the lower index comes first, as in
    argmax. Macro averages are over the classes that have images in the split. Raises ValueError when there is no image,
    when shapes do not fit, or when rows are no probabilities.
    """
    _check(labels, true, probabilities, files)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    truth = probabilities[np.arange(len(true)), true].astype(np.float64)
    correct = predicted == true
    rank = _rank(true, probabilities)

    indices = range(len(labels))
    scores = precision_recall_fscore_support(true, predicted, labels=indices, average=None, zero_division=0)
    classes = [
        ClassReport(label=label, precision=precision, recall=recall, f1=f1, support=support)
        for label, precision, recall, f1, support in zip(labels, *(s.tolist() for s in scores), strict=True)
    ]
    held = scores[3] > 0
    wrong = np.flatnonzero(~correct)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return Evaluation(
        images=len(true),
        loss=float(-np.log(np.clip(truth, LOSS_FLOOR, 1)).mean()),
        accuracy=float(correct.mean()),
        top5_accuracy=float((rank < TOP_K).mean()),
        macro_precision=float(scores[0][held].mean()),
        macro_recall=float(scores[1][held].mean()),
        macro_f1=float(scores[2][held].mean()),
        calibration_error=_calibration_error(confidence, correct),
        classes=classes,
        confusion=confusion_matrix(true, predicted, labels=indices).tolist(),
        mistakes=[
            Mistake(
                file=_printable(files[i]),
                true=labels[true[i]],
                predicted=labels[predicted[i]],
                probability=float(confidence[i]),
                true_probability=float(truth[i]),
            )
            for i in worst
        ],
    )


def _check(
    labels: Sequence[str],
    true: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    files: Sequence[str | Path],
) -> None:
    if len(true) == 0:
        raise ValueError("there is nothing to evaluate: expected at least one image, got 0")
    if true.ndim != 1 or not np.issubdtype(true.dtype, np.integer):
        raise ValueError(f"true classes should be int [N], they are {true.dtype} {list(true.shape)}")
    if probabilities.shape != (len(true), len(labels)):
        expected = f"[{len(true)} images, {len(labels)} classes]"
        raise ValueError(f"probabilities should have shape {expected}, they have {list(probabilities.shape)}")
    if len(files) != len(true):
        raise ValueError(f"each of {len(true)} images should have a file name, there are {len(files)}")
    if true.min() < 0 or true.max() >= len(labels):
        raise ValueError(f"true classes should be 0 to {len(labels) - 1}, they are {true.min()} to {true.max()}")
    _check_rows(probabilities, files)


def _check_rows(probabilities: NDArray[np.floating], files: Sequence[str | Path]) -> None:
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        count = len(finite) - int(finite.sum())
        raise ValueError(f"probabilities should be finite, {count} images have NaN or infinity, first {files[first]}")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    good = (np.abs(sums - 1) <= SUM_TOLERANCE) & (probabilities.min(axis=1) >= 0)
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(
            f"an image's probabilities should be at least 0 and sum to 1; those of {files[first]} "
            f"sum to {sums[first]:.4g}, the least is {probabilities[first].min():.4g}"
        )


def _rank(true: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.integer]:
    """Returns the true class's place, 0 for the first. Counting costs N * classes, sorting a logarithm more."""
    truth = probabilities[np.arange(len(true)), true][:, None]
    earlier = np.arange(probabilities.shape[1]) < true[:, None]
    rank: NDArray[np.intp] = ((probabilities > truth) | ((probabilities == truth) & earlier)).sum(axis=1)
    return rank


def _calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Returns the mean gap of confidence and accuracy over equal-width bins, weighted by their images (ECE)."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)  # (low, high]
    return float(np.abs(np.bincount(bins, weights=confidence - correct)).sum() / len(confidence))


def _printable(file: str | Path) -> str:
    """Returns a path as valid Unicode: unpacking a zip with GBK names on Linux leaves bytes that JSON cannot hold."""
    return os.fsencode(Path(file).as_posix()).decode("utf-8", errors="replace")
