"""Trained weights to a published version: export, verify, evaluate, report, package."""

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training import export, plots, resnext
from training.classifier import Probabilities, images_per_second, onnx_classifier
from training.config import TrainConfig
from training.contract import (
    GOLDEN_FILE,
    MODEL_FILE,
    REPORT_FOLDER,
    DatasetRecord,
    Manifest,
    ModelRepository,
    Variant,
)
from training.dataset import Split
from training.dataset_report import DatasetReport
from training.evaluate import evaluate
from training.progress import ProgressLog

GOLDEN_IMAGES = 8
LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime", "pillow", "numpy")


def publish(
    config: TrainConfig,
    weights: Path,
    history: list[dict[str, float]],
    report: DatasetReport,
    splits: dict[str, Split],
    repository: ModelRepository,
    log: ProgressLog,
) -> Manifest:
    """Makes the next version of the repository from `weights`; not yet live.

    Everything is written in a staging folder and appears in one step, or not at all. Raises ParityError when ONNX
    Runtime does not answer as Keras does on the validation images.
    """
    preprocessing, labels = config.preprocessing, report.labels
    with repository.staging() as staged:
        log.phase("exporting", "Keras -> ONNX")
        model = export.inference_model(weights, config.architecture, preprocessing, len(labels), merge_groups=False)
        function = export.traced(model, preprocessing)
        export.to_onnx(function, staged / MODEL_FILE, labels, preprocessing)

        log.phase("verifying", f"Keras against ONNX Runtime on {len(splits['val'])} validation images")
        if not resnext.has_grouped_kernels():  # then the exported graph runs anywhere but in TensorFlow
            merged = export.inference_model(weights, config.architecture, preprocessing, len(labels), merge_groups=True)
            function = export.traced(merged, preprocessing)
        reference = export.keras_classifier(function)(splits["val"].images)
        classify = onnx_classifier(staged / MODEL_FILE)
        probabilities = {name: classify(splits[name].images) for name in ("val", "test")}
        parity = export.compare(reference, probabilities["val"])
        log.console.print(
            f"same class on {parity.top1_equal} of {parity.images} images, "
            f"probabilities within {parity.max_abs_difference:.1e}"
        )
        write_golden(staged / GOLDEN_FILE, splits["val"], reference)

        log.phase("evaluating", "accuracy as served, by ONNX Runtime")
        evaluations = {
            name: evaluate(labels, splits[name].labels, answer, [s.name for s in splits[name].samples])
            for name, answer in probabilities.items()
        }
        folder = staged / REPORT_FOLDER
        folder.mkdir()
        (folder / "history.json").write_text(json.dumps(history, indent=1))
        (folder / "dataset.json").write_text(report.model_dump_json(indent=1))
        plots.plot_history({name: [epoch[name] for epoch in history] for name in history[0]}, folder / "history.png")
        for name, evaluation in evaluations.items():
            (folder / f"{name}.json").write_text(evaluation.model_dump_json(indent=1))
        plots.plot_confusion(evaluations["test"], labels, folder / "confusion.png")
        test = splits["test"]
        plots.plot_predictions(test.images, test.labels, probabilities["test"], labels, folder / "predictions.png")
        log.console.print(evaluations["test"].render())

        log.phase("publishing", f"into {repository.folder}")
        manifest = Manifest(
            name=config.name,
            created=datetime.now(UTC),
            labels=labels,
            preprocessing=preprocessing,
            variants={
                "fp32": Variant(
                    file=MODEL_FILE,
                    accuracy=evaluations["test"].accuracy,
                    images_per_second=images_per_second(classify, test.images),
                )
            },
            metrics={name: evaluation.metrics() for name, evaluation in evaluations.items()},
            parity=parity,
            config=config.model_dump(mode="json"),
            dataset=DatasetRecord(
                path=report.folder, fingerprint=report.fingerprint, images=report.images, seed=config.seed
            ),
            parameters=resnext.parameters(model),
            training_seconds=sum(epoch["seconds"] for epoch in history),
            libraries=library_versions(),
            parent=repository.active(),
        )
        return repository.publish(staged, manifest)


def write_golden(path: Path, split: Split, reference: Probabilities) -> None:
    """A few real images, evenly spread over the split, and the probabilities that Keras gave them."""
    chosen = np.linspace(0, len(split) - 1, min(GOLDEN_IMAGES, len(split)), dtype=int)
    np.savez(path, images=split.images[chosen], probabilities=reference[chosen])


def library_versions() -> dict[str, str]:
    """What made this version: Python and the libraries that touch a number."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in LIBRARIES if name in installed}}
