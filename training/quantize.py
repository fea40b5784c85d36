"""The quantizing phase: an INT8 variant of the verified model, kept if it answers nearly as well.

The graph is rewritten for the CPU (`training.graph`), calibrated on training images, quantised by ONNX Runtime: uint8
activations, int8 weights for each channel. How the ranges are taken is decided by the accuracy on the validation
images; where none comes close enough, the blocks that hurt most stay float32.
"""

import contextlib
import io
import logging
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from training import graph
from training.classifier import Classifier, Probabilities, Uint8Images, images_per_second, onnx_classifier
from training.config import CalibrationName, TrainConfig
from training.contract import GOLDEN_FILE, GOLDEN_PROBABILITIES, INPUT_NAME, INT8_FILE, MODEL_FILE, Variant
from training.dataset import Split, load, read_samples
from training.dataset_layout import Sample
from training.progress import ProgressLog
from training.records import QuantizationRecord, VerificationRecord
from training.run import Run

METHODS: dict[CalibrationName, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
MERGED_WIDTH = 32  # channels of a group: the fastest of 4 to 128 in each of the network's stages, docs/benchmarks.md
CALIBRATION_BATCH = 4  # images; a calibrator keeps every tensor of a batch
SELECTION_IMAGES = 1000  # validation images, at most, to choose the calibration by
SWEEP_IMAGES = 128
BLOCK = re.compile(r"stem|stage\d+_block\d+|logits")

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A quantised file and how well it does on validation images. `distance`: mean |probability - Keras'|."""

    accuracy: float
    distance: float
    path: Path
    method: CalibrationName
    float_blocks: tuple[str, ...]


def quantize(run: Run, log: ProgressLog) -> QuantizationRecord:
    """Writes `package/model.int8.onnx` where it stays within `gate.precision_budget` of float32 on the test images.

    Raises GraphError, DatasetError.
    """
    config, verification = run.config(), run.record("verifying", VerificationRecord)
    (run.package / INT8_FILE).unlink(missing_ok=True)
    if not config.int8.enabled:
        return QuantizationRecord(variants=verification.variants)
    samples = read_samples(run.samples)
    calibration = spread([s for s in samples if s.split == "train"], config.int8.calibration_images)
    log.phase("quantizing", f"INT8, calibrated on {len(calibration)} training images")
    chosen = [*calibration, *(s for s in samples if s.split != "train")]
    splits = load(chosen, config.preprocessing, run.folder / "cache")
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".quantizing-") as folder:
        quantizer = Quantizer(run.package / MODEL_FILE, splits["train"].images, Path(folder))
        best = Search(quantizer, splits["val"], np.load(run.reference)).best(config)
        return _judged(run, config, verification.variants["fp32"], splits["test"], best, log)


class Search:
    """Looks for the quantisation that does best on validation images, of which Keras said `reference`."""

    def __init__(self, quantizer: "Quantizer", val: Split, reference: Probabilities) -> None:
        self.quantizer = quantizer
        rows = np.linspace(0, len(val) - 1, min(SELECTION_IMAGES, len(val)), dtype=int)
        self.images, self.labels, self.reference = val.images[rows], val.labels[rows], reference[rows]

    def best(self, config: TrainConfig) -> Candidate:
        """The first way to calibrate that costs no accuracy, or the best, with blocks in float32 where need be."""
        candidates = []
        reached = self.accuracy_of(self.reference)
        for method in config.int8.methods:
            candidates.append(self._candidate(method))
            if candidates[-1].accuracy >= reached:
                break  # the others take minutes for images of 224 x 224
        best = max(candidates, key=_quality)
        needed = reached - config.gate.precision_budget
        return best if best.accuracy >= needed else self._with_float_blocks(best, needed)

    def accuracy_of(self, probabilities: Probabilities) -> float:
        return float((probabilities.argmax(1) == self.labels).mean())

    def _candidate(self, method: CalibrationName, blocks: tuple[str, ...] = (), images: int | None = None) -> Candidate:
        path = self.quantizer.quantize(method, blocks)
        probabilities = onnx_classifier(path)(self.images[:images])
        distance = float(np.abs(probabilities - self.reference[:images]).mean())
        correct = probabilities.argmax(1) == self.labels[:images]
        logger.info("int8, %s, float32 in %s: accuracy %.4f, distance %.2g", method, blocks, correct.mean(), distance)
        return Candidate(float(correct.mean()), distance, path, method, blocks)

    def _with_float_blocks(self, best: Candidate, needed: float) -> Candidate:
        """Leaves the blocks in float32 that bring the answers nearest to Keras', one more at a time, at most half."""
        alone = [self._candidate(best.method, (block,), SWEEP_IMAGES) for block in self.quantizer.blocks]
        order = [candidate.float_blocks[0] for candidate in sorted(alone, key=lambda candidate: candidate.distance)]
        for count in range(1, len(order) // 2 + 1):
            best = max(best, self._candidate(best.method, tuple(order[:count])), key=_quality)
            if best.accuracy >= needed:
                break
        return best


class Quantizer:
    """Quantises one model, calibrated on uint8 images [N, height, width, 3]. Writes into `folder`."""

    def __init__(self, model: Path, calibration: Uint8Images, folder: Path) -> None:
        self.folder = folder
        self.calibration = calibration
        self.source = folder / "float.onnx"
        rewritten = onnx.load(model)
        graph.fold_normalization(rewritten)
        graph.tidy(rewritten)
        graph.merge_groups(rewritten, MERGED_WIDTH)
        graph.drop_leftovers(rewritten)
        rewritten.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it would advise it
        onnx.save(onnx.shape_inference.infer_shapes(rewritten), self.source)
        self.nodes = {node.name: block_of(node) for node in rewritten.graph.node}
        self.blocks = sorted({block for block in self.nodes.values() if block})
        # logits stay float32: uint8 has 256 of them, and 256 probabilities
        self.float_nodes = [
            node.name
            for node in rewritten.graph.node
            if node.op_type == "Softmax" or (node.op_type, block_of(node)) == ("Add", "logits")
        ]

    def quantize(self, method: CalibrationName, float_blocks: Iterable[str] = ()) -> Path:
        """The INT8 file; `float_blocks` of it stay float32."""
        blocks = set(float_blocks)
        target = self.folder / f"{'-'.join([method, *sorted(blocks)])[:200]}.onnx"
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each batch
            quantize_static(
                self.source,
                target,
                _Batches(self.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=not has_int8_dot_product(),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[
                    *self.float_nodes,
                    *(name for name, block in self.nodes.items() if block in blocks),
                ],
                calibrate_method=METHODS[method],
                calibration_cache_path=self.folder / f"{method}.json",
                extra_options={
                    "CalibStridedMinMax": 1,  # batch by batch
                    "OpTypesToExcludeOutputQuantization": ["MatMul"],
                    "TensorQuantOverrides": {  # a pixel is a uint8 already
                        graph.STEM_INPUT: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
                    },
                },
            )
        model = onnx.load(target)
        graph.feed_pixels(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, target)
        return target


class _Batches(CalibrationDataReader):
    """Calibration images for ONNX Runtime, in batches."""

    def __init__(self, images: Uint8Images) -> None:
        self.batches = [images[i : i + CALIBRATION_BATCH] for i in range(0, len(images), CALIBRATION_BATCH)]
        self.rest = iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.rest = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, Uint8Images] | None:
        batch = next(self.rest, None)
        return None if batch is None else {INPUT_NAME: batch}


def block_of(node: onnx.NodeProto) -> str | None:
    """The network's block that a node belongs to, by its name or its weights'; None for those in between."""
    found = BLOCK.search(" ".join([node.name, *node.input[1:]]))
    return found.group() if found else None


def has_int8_dot_product(machine: str = platform.machine(), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU adds products of bytes without saturating (VNNI on x86): else weights have 7 bits."""
    if machine not in ("x86_64", "AMD64"):
        return True
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most `count` of them, evenly spread, hence over all classes."""
    return [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int)]


def _quality(candidate: Candidate) -> tuple[float, float]:
    return candidate.accuracy, -candidate.distance


def _judged(
    run: Run, config: TrainConfig, fp32: Variant, test: Split, best: Candidate, log: ProgressLog
) -> QuantizationRecord:
    """Keeps the file if it is within the budget on the test images."""
    classify = onnx_classifier(best.path)
    accuracy = float((classify(test.images).argmax(1) == test.labels).mean())
    speeds = _speeds([onnx_classifier(run.package / MODEL_FILE), classify], test.images)
    variants = {"fp32": fp32.model_copy(update={"images_per_second": speeds[0]})}
    log.console.print(
        f"int8 by {best.method}, {len(best.float_blocks)} blocks in float32: test accuracy {accuracy:.4f} "
        f"against {fp32.accuracy:.4f}, {speeds[1] / speeds[0]:.2f} times as fast"
    )
    if accuracy < fp32.accuracy - config.gate.precision_budget:
        note = (
            f"int8 is left out: its accuracy {accuracy:.4f} should be at most gate.precision_budget "
            f"{config.gate.precision_budget:g} below float32's {fp32.accuracy:.4f}"
        )
        log.console.print(note)
        return QuantizationRecord(variants=variants, notes=[note])
    best.path.replace(run.package / INT8_FILE)
    _add_golden(run.package / GOLDEN_FILE, classify)
    variants["int8"] = Variant(
        file=INT8_FILE,
        accuracy=accuracy,
        images_per_second=speeds[1],
        calibration=best.method,
        float_blocks=list(best.float_blocks),
    )
    return QuantizationRecord(variants=variants)


def _speeds(classifiers: list[Classifier], images: Uint8Images) -> list[float]:
    """Of each the best of three rounds, taken in turns: a busy moment should not hit one of them alone."""
    rounds = [[images_per_second(classify, images) for classify in classifiers] for _ in range(3)]
    return [max(column) for column in zip(*rounds, strict=True)]


def _add_golden(path: Path, classify: Classifier) -> None:
    """INT8's own answers beside Keras': the service that loads the variant should give these."""
    with np.load(path) as golden:
        arrays = dict(golden)
    np.savez(path, **arrays | {GOLDEN_PROBABILITIES["int8"]: classify(arrays["images"])})
