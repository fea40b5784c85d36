"""The verifying phase: proves that ONNX Runtime answers as Keras does, and measures the model as it will be served.

A CPU serves a copy of the exported graph that is rewritten for CPUs (`training.exported.rewrite`). That copy is proven
here too.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from training.contract.manifest import CPU_FILE, GOLDEN_FILE, MODEL_FILE, Parity, SplitMetrics, Variant
from training.contract.parity import TOLERANCE, same_class
from training.datasets.loading import Split, spread
from training.datasets.report import DatasetReport
from training.errors import TrainingError
from training.exported import plots, rewrite
from training.exported.classifier import Probabilities, images_per_second, onnx_classifier
from training.exported.evaluate import evaluate
from training.phases.images import images_of
from training.runs.console import ProgressLog
from training.runs.records import VerificationRecord
from training.runs.run import Run

CPU_TOLERANCE = 1e-5  # of a probability, exported graph against rewritten one: they differ by rounding only
CPU_IMAGES = 128  # validation images, at most, to compare the two on
CPU_WIDTH = 16  # channels of a group in float32: the fastest of 8, 16 and 32, docs/benchmarks.md

GOLDEN_IMAGES = 8


class ParityError(TrainingError):
    """A disagreement of Keras and ONNX Runtime: nothing may be published."""


def verify(run: Run, log: ProgressLog) -> VerificationRecord:
    """Compares the exported model with Keras on the validation images, and evaluates it on val and test.

    Writes the graph for CPUs, golden images and the report into the package. All answers are ONNX Runtime's: val by
    the exported graph, test by the graph that a CPU serves. The figures on val of a head alone are those of its
    cross-validation. Raises ParityError, GraphError, DatasetError.
    """
    dataset = run.record("checking", DatasetReport)
    splits = images_of(run, "val", "test")
    log.announce("verifying", f"Keras against ONNX Runtime on {len(splits['val'])} validation images")
    classify = onnx_classifier(run.package / MODEL_FILE)
    exported = classify(splits["val"].images)
    reference = np.load(run.reference)
    parity = compare(reference, exported)
    log.console.print(
        f"same class on {parity.top1_equal} of {parity.images} images, "
        f"probabilities within {parity.max_abs_difference:.1e}"
    )
    write_golden(run.package / GOLDEN_FILE, splits["val"], reference)
    write_for_cpus(run.package / MODEL_FILE, run.package / CPU_FILE)
    served = onnx_classifier(run.package / CPU_FILE)
    rows = spread(len(exported), CPU_IMAGES)
    if note := why_left_out(exported[rows], served(splits["val"].images[rows])):
        log.console.print(note)
        (run.package / CPU_FILE).unlink()
        served = classify
    probabilities = {"val": exported, "test": served(splits["test"].images)}
    np.savez(run.answers, **{split: rows.argmax(1) for split, rows in probabilities.items()})
    if run.head.exists():  # it has seen the validation images
        probabilities["val"] = np.load(run.val_answers)
    metrics = write_report(run, dataset, splits, probabilities, log)
    speeds = images_per_second([served], splits["test"].images)
    fp32 = Variant(
        file=MODEL_FILE,
        cpu_file=None if note else CPU_FILE,
        accuracy=metrics["test"].accuracy,
        images_per_second=speeds[0] if speeds else None,
    )
    return VerificationRecord(
        created=datetime.now(UTC),
        parity=parity,
        metrics=metrics,
        variants={"fp32": fp32},
        notes=[note] if note else [],
    )


def compare(reference: Probabilities, candidate: Probabilities) -> Parity:
    """Returns the parity of two classifiers' answers to the same images.

    Raises ParityError when a probability differs by more than 1e-4, or when an image's top class differs and is no tie
    in Keras' own probabilities.
    """
    difference = float(np.abs(reference - candidate).max())
    equal = int(same_class(reference, candidate).sum())
    if not difference <= TOLERANCE or equal < len(reference):  # written so that NaN fails
        raise ParityError(
            f"ONNX Runtime should answer as Keras does on all {len(reference)} images (same top class, probabilities "
            f"within {TOLERANCE:g}); it names the same class on {equal}, and is off by up to {difference:.2g}"
        )
    return Parity(images=len(reference), top1_equal=equal, max_abs_difference=difference)


def write_for_cpus(source: Path, target: Path) -> None:
    """Writes a copy of an exported model that suits ONNX Runtime's float32 kernels on a CPU. Raises GraphError."""
    model = onnx.load(source)
    rewrite.rewrite_for_cpus(model, CPU_WIDTH)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def why_left_out(exported: Probabilities, rewritten: Probabilities) -> str | None:
    """Returns why a CPU should not serve the rewritten graph, None if it should; takes both graphs' probabilities.

    This is no error: the exported graph is proven and can be served too, 6 % slower. That is not worth a training.
    """
    difference = float(np.abs(exported - rewritten).max())
    if difference <= CPU_TOLERANCE:  # NaN is not
        return None
    return (
        f"{CPU_FILE} is left out: its probabilities should be within {CPU_TOLERANCE:g} of {MODEL_FILE}'s on "
        f"{len(exported)} images, they differ by up to {difference:.2g}"
    )


def write_golden(path: Path, split: Split, reference: Probabilities) -> None:
    """Writes a few real images, evenly spread over the split, and the probabilities that Keras gave them."""
    rows = spread(len(split), GOLDEN_IMAGES)
    np.savez(path, images=split.images[rows], probabilities=reference[rows])


def write_report(
    run: Run,
    dataset: DatasetReport,
    splits: dict[str, Split],
    probabilities: dict[str, Probabilities],
    log: ProgressLog,
) -> dict[str, SplitMetrics]:
    """Writes figures and pictures into the package's report; returns the totals of each split."""
    labels, folder, test = dataset.labels, run.report, splits["test"]
    (folder / "dataset.json").write_text(dataset.model_dump_json(indent=1))
    history = json.loads((folder / "history.json").read_text())
    if history:  # a head alone is trained in no epoch
        plots.plot_history({name: [epoch[name] for epoch in history] for name in history[0]}, folder / "history.png")
    evaluations = {
        name: evaluate(labels, split.labels, probabilities[name], [s.name for s in split.samples])
        for name, split in splits.items()
    }
    for name, evaluation in evaluations.items():
        (folder / f"{name}.json").write_text(evaluation.model_dump_json(indent=1))
    plots.plot_confusion(evaluations["test"], labels, folder / "confusion.png")
    plots.plot_predictions(test.images, test.labels, probabilities["test"], labels, folder / "predictions.png")
    log.console.print(evaluations["test"].render(log.console.options.max_width), markup=False)
    return {name: evaluation.metrics() for name, evaluation in evaluations.items()}
