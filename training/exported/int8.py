"""INT8: the verified model with uint8 activations, and int8 weights for each channel.

The graph is rewritten for the CPU (`training.exported.rewrite`), calibrated on training images and quantized by ONNX
Runtime. How the ranges are taken is decided by the accuracy on the validation images; where none comes close enough,
the blocks that hurt most stay float32.
"""

import contextlib
import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from training.config import CalibrationName, TrainConfig
from training.contract.manifest import INPUT_NAME
from training.datasets.loading import Split, spread
from training.exported import rewrite
from training.exported.classifier import Probabilities, Uint8Images, onnx_classifier
from training.network.divergence import at_least
from training.system.cpu import has_int8_dot_product

METHODS: dict[CalibrationName, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
MERGED_WIDTH = 32  # channels of a group: the fastest of 4 to 128 in each of the network's stages, docs/benchmarks.md
SPLIT_GROUPS = 8  # convolutions of more groups are faster in one piece
CALIBRATION_BATCH = 4  # images; a calibrator keeps every tensor of a batch
SELECTION_IMAGES = 1000  # validation images, at most, to choose the calibration by
SWEEP_IMAGES = 128
FEW_IMAGES = 2  # that decide nothing: of 27 images one is a share of 0.037
ROUNDING = 1e-9  # of a difference of two accuracies
LOGITS = "logits"
BLOCK = re.compile(rf"stem|stage\d+_block\d+|{LOGITS}")

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A quantised file and how well it does on validation images. `distance`: mean |probability - Keras'|."""

    accuracy: float
    distance: float
    path: Path
    method: CalibrationName
    float_blocks: tuple[str, ...]


class Search:
    """Looks for the quantisation that does best on validation images, of which Keras said `reference`."""

    def __init__(self, quantizer: "Quantizer", val: Split, reference: Probabilities) -> None:
        self.quantizer = quantizer
        rows = spread(len(val), SELECTION_IMAGES)
        self.images, self.labels, self.reference = val.images[rows], val.labels[rows], reference[rows]

    def best(self, config: TrainConfig) -> Candidate:
        """The first way to calibrate that costs no accuracy, or the best, with blocks in float32 where need be.

        Two images are no cost.
        """
        candidates = []
        reached = self.accuracy_of(self.reference) - FEW_IMAGES / len(self.labels) - ROUNDING
        for method in config.int8.methods:
            candidates.append(self._candidate(method))
            if candidates[-1].accuracy >= reached:
                break  # the others take minutes for images of 224 x 224
        best = max(candidates, key=_quality)
        needed = min(reached, self.accuracy_of(self.reference) - config.gate.precision_budget)
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
        rewrite.rewrite_for_cpus(rewritten, MERGED_WIDTH)
        rewritten.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it would advise it
        onnx.save(onnx.shape_inference.infer_shapes(rewritten), self.source)
        self.nodes = {node.name: block_of(node) for node in rewritten.graph.node}
        self.blocks = sorted({block for block in self.nodes.values() if block and block != LOGITS})
        # logits stay float32: uint8 has 256 of them, and 256 probabilities. Hence their weights do too: ONNX Runtime
        # would make floats of INT8 ones in each run, 2 ms for 2048 x 1000
        self.float_nodes = [
            node.name for node in rewritten.graph.node if node.op_type == "Softmax" or block_of(node) == LOGITS
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
                    "TensorQuantOverrides": {  # a pixel is a uint8 already
                        rewrite.STEM_INPUT: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
                    },
                },
            )
        model = onnx.load(target)
        rewrite.feed_pixels(model)
        rewrite.split_groups(model, SPLIT_GROUPS)
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


def _quality(candidate: Candidate) -> tuple[float, float]:
    return candidate.accuracy, at_least(-candidate.distance)
