"""The quantizing phase: makes variants at lower precisions and keeps those that answer nearly as well as float32.

INT8 is for CPUs (`training.exported.int8`), FP16 for GPUs (`training.exported.fp16`). Both are judged in the same way:
by their answers on the validation and test images, compared with those of float32.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import BaseModel

from training.config import Gate, TrainConfig
from training.contract.intervals import Proportion
from training.contract.manifest import FP16_FILE, GOLDEN_FILE, INT8_FILE, MODEL_FILE, PRECISIONS, Precision, Variant
from training.contract.verdict import Verdict
from training.datasets.loading import Split, load, read_samples, spread
from training.datasets.report import DatasetReport
from training.exported import fp16
from training.exported.classifier import Classifier, Uint8Images, images_per_second, onnx_classifier
from training.exported.int8 import FEW_IMAGES, QuantizationSearch, QuantizedFile, Quantizer
from training.heads.backbone import Backbone, backbone_of
from training.heads.folding import put_head, read_head
from training.runs.console import ProgressLog
from training.runs.records import QuantizationRecord, VerificationRecord
from training.runs.run import Run
from training.runs.source import read_source

INT8_NOTE = "int8.json"  # beside the INT8 file of a backbone


class Calibrated(BaseModel):
    """How the INT8 file of a backbone was made."""

    method: str
    float_blocks: tuple[str, ...]


class NewVariant(NamedTuple):
    """A variant that is not judged yet, in a temporary file. `classify` gives the answers that it will serve."""

    precision: Precision
    path: Path
    classify: Classifier
    calibration: str | None = None
    float_blocks: tuple[str, ...] = ()


def quantize(run: Run, verdict: Verdict, log: ProgressLog) -> QuantizationRecord:
    """Writes `package/model.int8.onnx` and `package/model.fp16.onnx`, unless the gate rejected the candidate.

    A variant that does not answer nearly as float32 does on the validation and test images is left out. Raises
    GraphError, DatasetError.
    """
    config, verification = run.config(), run.record("verifying", VerificationRecord)
    record = QuantizationRecord(variants=dict(verification.variants), notes=list(verification.notes))
    for file in (INT8_FILE, FP16_FILE):
        (run.package / file).unlink(missing_ok=True)
    if not (config.int8.enabled or config.fp16.enabled):
        return record
    log.announce("quantizing", "the model at other precisions")
    if why := _why_skipped(verdict):
        log.tell(f"none is made: {why}")
        record.skipped = True
        return record
    splits = _images(run, config)
    held_out = HeldOutImages.of(run, splits)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".quantizing-") as folder:
        for variant in _new_variants(run, config, splits, Path(folder), log):
            _judge(run, config.gate, held_out, variant, record, log)
    return record


def _why_skipped(verdict: Verdict) -> str | None:
    if verdict.dry_run:
        return "gate.dry_run is set"
    if not verdict.passed and verdict.policy != "never":  # under the policy never an operator activates by hand
        return "the version is rejected"
    return None


class HeldOutImages(NamedTuple):
    """The validation images and then the test images, with the classes float32 names.

    No training step saw them, but a head alone is fitted to the validation images.

    `images` is uint8 [N, height, width, 3], `labels` and `fp32` are int [N]; the last `tests` are the test images.
    """

    images: Uint8Images
    labels: NDArray[np.int32]
    fp32: NDArray[np.int64]
    tests: int

    @classmethod
    def of(cls, run: Run, splits: dict[str, Split]) -> Self:
        """Joins the splits `val` and `test` and reads float32's answers, which the run has kept."""
        val, test = splits["val"], splits["test"]
        with np.load(run.answers) as answers:
            fp32 = np.concatenate([answers["val"], answers["test"]])
        images = np.concatenate([val.images, test.images])
        return cls(images, np.concatenate([val.labels, test.labels]), fp32, len(test))

    def accuracy(self, named: NDArray[np.int64]) -> Proportion:
        """Returns the accuracy on the test images alone, as the manifest has it."""
        return Proportion(int((named == self.labels)[-self.tests :].sum()), self.tests)

    def lost(self, named: NDArray[np.int64]) -> int:
        """Returns the number of images that only float32 names right, minus those that only float32 names wrong."""
        return int((self.fp32 == self.labels).sum() - (named == self.labels).sum())


def _images(run: Run, config: TrainConfig) -> dict[str, Split]:
    """Decodes all held-out images, to choose and judge by, and some training images, to calibrate INT8."""
    samples = read_samples(run.samples)
    training = [s for s in samples if s.split == "train"]
    rows = spread(len(training), config.int8.calibration_images if config.int8.enabled else 0)  # over all classes
    chosen = [*(training[row] for row in rows), *(s for s in samples if s.split != "train")]
    return load(chosen, config.preprocessing, run.folder)


def _new_variants(
    run: Run, config: TrainConfig, splits: dict[str, Split], folder: Path, log: ProgressLog
) -> Iterator[NewVariant]:
    if config.int8.enabled:
        yield _kept_int8(run, config, splits, folder, log) or _new_int8(run, config, splits, folder, log)
    if config.fp16.enabled:
        path = folder / FP16_FILE
        yield NewVariant("fp16", path, write_fp16(run.package / MODEL_FILE, path))


def _new_int8(run: Run, config: TrainConfig, splits: dict[str, Split], folder: Path, log: ProgressLog) -> NewVariant:
    """Calibrates and writes INT8. For a head, it is kept for later heads on the same backbone."""
    log.console.print(f"INT8, calibrated on {len(splits['train'])} training images")
    quantizer = Quantizer(run.package / MODEL_FILE, splits["train"].images, folder)
    val = splits["val"]
    best = QuantizationSearch(quantizer, val.images, val.labels, np.load(run.reference)).best(config)
    if backbone := _backbone(run, config):
        keep_int8(backbone, best)
    return NewVariant("int8", best.path, onnx_classifier(best.path), best.method, best.float_blocks)


def keep_int8(backbone: Backbone, made: QuantizedFile) -> None:
    """Keeps an INT8 file for later heads on the same backbone, with a note on how it was made beside it."""
    note = made.path.with_name(INT8_NOTE)
    note.write_text(Calibrated(method=made.method, float_blocks=made.float_blocks).model_dump_json())
    backbone.keep(INT8_FILE, made.path)
    backbone.keep(INT8_NOTE, note)


def _kept_int8(
    run: Run, config: TrainConfig, splits: dict[str, Split], folder: Path, log: ProgressLog
) -> NewVariant | None:
    """Puts the run's head into the INT8 file of its backbone. None where there is none, or it does badly here.

    It was calibrated on other images: where it loses more than two validation images, these images calibrate anew.
    """
    backbone = _backbone(run, config)
    path = folder / INT8_FILE
    if not (backbone and backbone.take(INT8_FILE, path) and backbone.take(INT8_NOTE, folder / INT8_NOTE)):
        return None
    put_head(path, read_head(run.head), run.record("checking", DatasetReport).labels)
    classify, val = onnx_classifier(path), splits["val"]
    fp32 = (np.load(run.reference).argmax(1) == val.labels).sum()
    if fp32 - (classify(val.images).argmax(1) == val.labels).sum() > FEW_IMAGES:
        return None
    log.console.print("INT8, as calibrated for an earlier head on the same weights")
    calibrated = Calibrated.model_validate_json((folder / INT8_NOTE).read_bytes())
    return NewVariant("int8", path, classify, calibrated.method, calibrated.float_blocks)


def _backbone(run: Run, config: TrainConfig) -> Backbone | None:
    """Returns the place of the files of the run's backbone, None where the run trained it."""
    source = read_source(run) if run.head.exists() else None
    return backbone_of(config, source) if source else None


def write_fp16(source: Path, target: Path) -> Classifier:
    """Writes the model in float16; returns a classifier that answers on a CPU as a GPU would. Raises GraphError."""
    model = onnx.load(source)
    fp16.halve(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    fp16.widen(model)
    wide = target.with_name(f"wide.{target.name}")
    onnx.save(model, wide)
    return onnx_classifier(wide)


def _judge(
    run: Run, gate: Gate, held_out: HeldOutImages, variant: NewVariant, record: QuantizationRecord, log: ProgressLog
) -> None:
    """Moves the variant's file into the package and adds it to the record, or notes there why it is left out."""
    name, fp32 = variant.precision, record.variants["fp32"]
    named = variant.classify(held_out.images).argmax(1)
    agreement = Proportion(int((named == held_out.fp32).sum()), len(named))
    figures = f"{name}: names float32's class on {agreement.count} of {agreement.images} held-out images"
    speed = None
    if name == "int8":
        served = onnx_classifier(run.package / fp32.file_on("cpu"))
        speeds = images_per_second([served, variant.classify], held_out.images)
        if speeds:
            record.variants["fp32"] = fp32.model_copy(update={"images_per_second": speeds[0]})
            speed = speeds[1]
        figures += f"; {speeds[1] / speeds[0]:.2f} times as fast" if speeds else "; the machine is too busy to time it"
        figures += f"; by {variant.calibration}, {len(variant.float_blocks)} blocks in float32"
    log.tell(figures)
    if why := why_left_out(gate, agreement, held_out.lost(named)):
        note = f"{name} is left out: {why}"
        log.tell(note)
        record.notes.append(note)
        return
    variant.path.replace(run.package / PRECISIONS[name].file)
    _add_golden(run.package / GOLDEN_FILE, variant)
    record.variants[name] = Variant(
        file=PRECISIONS[name].file,
        accuracy=held_out.accuracy(named).share,
        agreement=agreement.share,
        images_per_second=speed,
        calibration=variant.calibration,
        float_blocks=list(variant.float_blocks),
    )


def why_left_out(gate: Gate, agreement: Proportion, lost: int) -> str | None:
    """Returns why a variant is left out, None where it is kept. Two images never decide. `lost`: HeldOutImages.lost."""
    images = agreement.images
    differing, allowed = images - agreement.count, max(FEW_IMAGES, round((1 - gate.agreement) * images, 6))
    if differing > allowed:
        return (
            f"on {differing} of {images} held-out images it names another class than float32; it should be at most "
            f"{allowed:g} ({FEW_IMAGES} images, or all but gate.agreement {gate.agreement:g} of them)"
        )
    if lost > (allowed := max(FEW_IMAGES, gate.precision_budget * images)):
        return (
            f"it names {lost} more of {images} held-out images wrong than float32; it should be at most {allowed:g} "
            f"({FEW_IMAGES} images, or gate.precision_budget {gate.precision_budget:g} of them)"
        )
    return None


def _add_golden(path: Path, variant: NewVariant) -> None:
    """Adds the variant's own answers beside Keras'; a service that loads the variant should give the same."""
    with np.load(path) as golden:
        arrays = dict(golden)
    name = PRECISIONS[variant.precision].golden
    new = path.with_name(f"new.{path.name}")  # not overwritten: the old file may be linked into a version
    np.savez(new, **arrays | {name: variant.classify(arrays["images"])})
    new.replace(path)
