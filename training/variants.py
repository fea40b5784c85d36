"""The quantizing phase: the verified model at other precisions, each kept if it answers nearly as well.

INT8 is for CPUs (`training.quantize`), FP16 for GPUs (`training.graph.halve`). Both are judged in the same way: by
their accuracy on the test images.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from training import graph
from training.classifier import Classifier, Uint8Images, images_per_second, onnx_classifier
from training.config import TrainConfig
from training.contract import FP16_FILE, GOLDEN_FILE, GOLDEN_PROBABILITIES, INT8_FILE, MODEL_FILE, Variant
from training.datasets.dataset import Split, load, read_samples, spread
from training.progress import ProgressLog
from training.quantize import Quantizer, Search
from training.records import QuantizationRecord, VerificationRecord
from training.run import Run

FILES = {"int8": INT8_FILE, "fp16": FP16_FILE}


class Proposal(NamedTuple):
    """The model at another precision, in a file of its own. `classify` answers as it will where it is served."""

    precision: str
    path: Path
    classify: Classifier
    calibration: str | None = None
    float_blocks: tuple[str, ...] = ()


def make_variants(run: Run, log: ProgressLog) -> QuantizationRecord:
    """Writes `package/model.int8.onnx` and `package/model.fp16.onnx`.

    Each only where it stays within `gate.precision_budget` of float32 on the test images. Raises GraphError,
    DatasetError.
    """
    config, verification = run.config(), run.record("verifying", VerificationRecord)
    record = QuantizationRecord(variants=dict(verification.variants), notes=list(verification.notes))
    for file in FILES.values():
        (run.package / file).unlink(missing_ok=True)
    if not (config.int8.enabled or config.fp16.enabled):
        return record
    log.phase("quantizing", "the model at other precisions")
    splits = _images(run, config)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".quantizing-") as folder:
        for proposal in _proposals(run, config, splits, Path(folder), log):
            _judge(run, config, splits["test"], proposal, record, log)
    return record


def _images(run: Run, config: TrainConfig) -> dict[str, Split]:
    """Test images, and what INT8 is made by: training images to calibrate on, validation images to choose by."""
    samples = read_samples(run.samples)
    chosen = [s for s in samples if s.split == "test"]
    if config.int8.enabled:
        training = [s for s in samples if s.split == "train"]
        rows = spread(len(training), config.int8.calibration_images)  # hence over all classes
        chosen += [*(training[row] for row in rows), *(s for s in samples if s.split == "val")]
    return load(chosen, config.preprocessing, run.folder / "cache")


def _proposals(
    run: Run, config: TrainConfig, splits: dict[str, Split], folder: Path, log: ProgressLog
) -> Iterator[Proposal]:
    if config.int8.enabled:
        log.console.print(f"INT8, calibrated on {len(splits['train'])} training images")
        quantizer = Quantizer(run.package / MODEL_FILE, splits["train"].images, folder)
        best = Search(quantizer, splits["val"], np.load(run.reference)).best(config)
        yield Proposal("int8", best.path, onnx_classifier(best.path), best.method, best.float_blocks)
    if config.fp16.enabled:
        path = folder / FP16_FILE
        yield Proposal("fp16", path, write_fp16(run.package / MODEL_FILE, path))


def write_fp16(source: Path, target: Path) -> Classifier:
    """Writes the model in float16; returns what answers for it on a CPU. Raises GraphError."""
    model = onnx.load(source)
    graph.halve(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    graph.widen(model)
    wide = target.with_name(f"wide.{target.name}")
    onnx.save(model, wide)
    return onnx_classifier(wide)


def _judge(
    run: Run, config: TrainConfig, test: Split, proposal: Proposal, record: QuantizationRecord, log: ProgressLog
) -> None:
    """Moves the file into the package and notes it in the record if it is within the budget on the test images."""
    name, fp32 = proposal.precision, record.variants["fp32"]
    accuracy = float((proposal.classify(test.images).argmax(1) == test.labels).mean())
    figures = f"{name}: test accuracy {accuracy:.4f} against {fp32.accuracy:.4f}"
    speed = None
    if name == "int8":
        served = onnx_classifier(run.package / fp32.file_on("cpu"))
        fp32_speed, speed = _speeds([served, proposal.classify], test.images)
        record.variants["fp32"] = fp32.model_copy(update={"images_per_second": fp32_speed})
        figures += f", {speed / fp32_speed:.2f} times as fast; by {proposal.calibration}"
        figures += f", {len(proposal.float_blocks)} blocks in float32"
    log.console.print(figures)
    if accuracy < fp32.accuracy - config.gate.precision_budget:
        note = (
            f"{name} is left out: its accuracy {accuracy:.4f} should be at most gate.precision_budget "
            f"{config.gate.precision_budget:g} below float32's {fp32.accuracy:.4f}"
        )
        log.console.print(note)
        record.notes.append(note)
        return
    proposal.path.replace(run.package / FILES[name])
    _add_golden(run.package / GOLDEN_FILE, proposal)
    record.variants[name] = Variant(
        file=FILES[name],
        accuracy=accuracy,
        images_per_second=speed,
        calibration=proposal.calibration,
        float_blocks=list(proposal.float_blocks),
    )


def _speeds(classifiers: list[Classifier], images: Uint8Images) -> list[float]:
    """Of each the best of three rounds, taken in turns: a busy moment should not hit one of them alone."""
    rounds = [[images_per_second(classify, images) for classify in classifiers] for _ in range(3)]
    return [max(column) for column in zip(*rounds, strict=True)]


def _add_golden(path: Path, proposal: Proposal) -> None:
    """The variant's own answers beside Keras': the service that loads it should give these."""
    with np.load(path) as golden:
        arrays = dict(golden)
    name = GOLDEN_PROBABILITIES[proposal.precision]
    np.savez(path, **arrays | {name: proposal.classify(arrays["images"])})
