"""The verification phase: proof that ONNX Runtime answers as Keras does, and what the model reaches as served."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training import plots
from training.classifier import Probabilities, images_per_second, onnx_classifier
from training.contract import GOLDEN_FILE, MODEL_FILE, Metrics, Parity, Variant
from training.datasets.dataset import Split, load, read_samples
from training.datasets.report import DatasetReport
from training.errors import TrainingError
from training.evaluate import evaluate
from training.progress import ProgressLog
from training.records import VerificationRecord
from training.run import Run

TOLERANCE = 1e-4  # of a probability, Keras against ONNX Runtime
TIE = 1e-6  # two classes that Keras holds closer than this may change places

GOLDEN_IMAGES = 8


class ParityError(TrainingError):
    """Keras and ONNX Runtime disagree: nothing may be published."""


def verify(run: Run, log: ProgressLog) -> VerificationRecord:
    """Compares the exported model with Keras on the validation images, evaluates it on val and test, by ONNX Runtime.

    Writes golden images and the report into the package. Raises ParityError, DatasetError.
    """
    config = run.config()
    dataset = run.record("checking", DatasetReport)
    splits = load(read_samples(run.samples), config.preprocessing, run.folder / "cache", ("val", "test"))
    log.phase("verifying", f"Keras against ONNX Runtime on {len(splits['val'])} validation images")
    classify = onnx_classifier(run.package / MODEL_FILE)
    probabilities = {name: classify(split.images) for name, split in splits.items()}
    reference = np.load(run.reference)
    parity = compare(reference, probabilities["val"])
    log.console.print(
        f"same class on {parity.top1_equal} of {parity.images} images, "
        f"probabilities within {parity.max_abs_difference:.1e}"
    )
    write_golden(run.package / GOLDEN_FILE, splits["val"], reference)
    metrics = write_report(run, dataset, splits, probabilities, log)
    speed = images_per_second(classify, splits["test"].images)
    return VerificationRecord(
        created=datetime.now(UTC),
        parity=parity,
        metrics=metrics,
        variants={"fp32": Variant(file=MODEL_FILE, accuracy=metrics["test"].accuracy, images_per_second=speed)},
    )


def compare(reference: Probabilities, candidate: Probabilities) -> Parity:
    """Parity of two classifiers' answers to the same images.

    Raises ParityError when a probability differs by more than 1e-4, or an image's top class differs where Keras does
    not itself call it a tie.
    """
    difference = float(np.abs(reference - candidate).max())
    rows = np.arange(len(reference))
    lead = reference[rows, reference.argmax(1)] - reference[rows, candidate.argmax(1)]
    equal = int((lead <= TIE).sum())
    if difference > TOLERANCE or equal < len(reference):
        raise ParityError(
            f"ONNX Runtime should answer as Keras does on all {len(reference)} images (same top class, probabilities "
            f"within {TOLERANCE:g}); it names the same class on {equal}, and is off by up to {difference:.2g}"
        )
    return Parity(images=len(reference), top1_equal=equal, max_abs_difference=difference)


def write_golden(path: Path, split: Split, reference: Probabilities) -> None:
    """A few real images, evenly spread over the split, and the probabilities that Keras gave them."""
    chosen = np.linspace(0, len(split) - 1, min(GOLDEN_IMAGES, len(split)), dtype=int)
    np.savez(path, images=split.images[chosen], probabilities=reference[chosen])


def write_report(
    run: Run,
    dataset: DatasetReport,
    splits: dict[str, Split],
    probabilities: dict[str, Probabilities],
    log: ProgressLog,
) -> dict[str, Metrics]:
    """Figures and pictures into the package's report; returns the totals of each split."""
    labels, folder, test = dataset.labels, run.report, splits["test"]
    (folder / "dataset.json").write_text(dataset.model_dump_json(indent=1))
    history = json.loads((folder / "history.json").read_text())
    plots.plot_history({name: [epoch[name] for epoch in history] for name in history[0]}, folder / "history.png")
    evaluations = {
        name: evaluate(labels, split.labels, probabilities[name], [s.name for s in split.samples])
        for name, split in splits.items()
    }
    for name, evaluation in evaluations.items():
        (folder / f"{name}.json").write_text(evaluation.model_dump_json(indent=1))
    plots.plot_confusion(evaluations["test"], labels, folder / "confusion.png")
    plots.plot_predictions(test.images, test.labels, probabilities["test"], labels, folder / "predictions.png")
    log.console.print(evaluations["test"].render(), markup=False)
    return {name: evaluation.metrics() for name, evaluation in evaluations.items()}
