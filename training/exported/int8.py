"""INT8: the verified model with uint8 activations and int8 weights, which have a scale for each channel.

The graph is rewritten for CPUs (`training.exported.rewrite`), calibrated on training images and quantized by ONNX
Runtime. The accuracy on the validation images chooses the calibration method. Where no method is accurate enough, the
blocks that hurt most stay float32.
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
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from training.config import CalibrationName, Recipe
from training.contract.manifest import INPUT_NAME
from training.datasets.loading import spread
from training.exported import rewrite
from training.exported.classifier import Probabilities, Uint8Images, onnx_classifier
from training.network.divergence import at_least
from training.system.cpu import has_int8_dot_product

METHODS: dict[CalibrationName, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
MERGED_WIDTH = 32  # channels of a group: the fastest of 4 to 128 in every stage of the network, docs/benchmarks.md
SPLIT_GROUPS = 8  # a convolution of more groups is faster in one piece
CALIBRATION_BATCH = 4  # images; a calibrator keeps every tensor of a batch in memory
SELECTION_IMAGES = 1000  # validation images, at most, that choose the calibration
SWEEP_IMAGES = 128  # validation images, at most, that try one block in float32
FEW_IMAGES = 2  # a loss of so few decides nothing: one of 27 images is a share of 0.037
ROUNDING = 1e-9  # tolerance for the difference of two accuracies
LOGITS = "logits"
BLOCK = re.compile(rf"stem|stage\d+_block\d+|{LOGITS}")

logger = logging.getLogger(__name__)


class QuantizedFile(NamedTuple):
    """A quantized file and its figures on validation images. `distance` is the mean of |probability - Keras'|."""

    accuracy: float
    distance: float
    path: Path
    method: CalibrationName
    float_blocks: tuple[str, ...]


class QuantizationSearch:
    """A search for the calibration that does best on images that calibrate nothing.

    `labels` holds their classes, int [N], and `reference` Keras' answers.
    """

    def __init__(
        self, quantizer: "Quantizer", images: Uint8Images, labels: NDArray[np.integer], reference: Probabilities
    ) -> None:
        self.quantizer = quantizer
        rows = spread(len(images), SELECTION_IMAGES)
        self.images, self.labels, self.reference = images[rows], labels[rows], reference[rows]

    def best(self, config: Recipe) -> QuantizedFile:
        """Returns the first calibration that costs no accuracy, else the best, with blocks in float32 where needed.

        A loss of two images is no cost.
        """
        files = []
        reached = self.accuracy_of(self.reference) - FEW_IMAGES / len(self.labels) - ROUNDING
        for method in config.int8.methods:
            files.append(self._quantized(method))
            if files[-1].accuracy >= reached:
                break  # the other methods take minutes for images of 224 x 224
        best = max(files, key=_quality)
        needed = min(reached, self.accuracy_of(self.reference) - config.gate.precision_budget)
        return best if best.accuracy >= needed else self._with_float_blocks(best, needed)

    def accuracy_of(self, probabilities: Probabilities) -> float:
        """Returns the share of the validation images that are named right."""
        return float((probabilities.argmax(1) == self.labels).mean())

    def _quantized(
        self, method: CalibrationName, blocks: tuple[str, ...] = (), images: int | None = None
    ) -> QuantizedFile:
        path = self.quantizer.quantize(method, blocks)
        probabilities = onnx_classifier(path)(self.images[:images])
        distance = float(np.abs(probabilities - self.reference[:images]).mean())
        correct = probabilities.argmax(1) == self.labels[:images]
        logger.info("int8, %s, float32 in %s: accuracy %.4f, distance %.2g", method, blocks, correct.mean(), distance)
        return QuantizedFile(float(correct.mean()), distance, path, method, blocks)

    def _with_float_blocks(self, best: QuantizedFile, needed: float) -> QuantizedFile:
        """Keeps more and more blocks in float32, the most helpful first, until it is enough; at most half."""
        alone = [self._quantized(best.method, (block,), SWEEP_IMAGES) for block in self.quantizer.blocks]
        order = [file.float_blocks[0] for file in sorted(alone, key=lambda file: file.distance)]
        for count in range(1, len(order) // 2 + 1):
            best = max(best, self._quantized(best.method, tuple(order[:count])), key=_quality)
            if best.accuracy >= needed:
                break
        return best


class Quantizer:
    """A quantizer of one model, calibrated on uint8 images [N, height, width, 3]. Writes into `folder`."""

    def __init__(
        self,
        model: Path,
        calibration: Uint8Images,
        folder: Path,
        *,
        merged_width: int = MERGED_WIDTH,
        split_groups: int = SPLIT_GROUPS,
    ) -> None:
        self.folder = folder
        self.split_groups = split_groups
        self.calibration = calibration
        self.source = folder / "float.onnx"
        rewritten = onnx.load(model)
        rewrite.rewrite_for_cpus(rewritten, merged_width)
        # without this mark quantize_static advises a pre-processing that is done here
        rewritten.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        onnx.save(onnx.shape_inference.infer_shapes(rewritten), self.source)
        self.nodes = {node.name: block_of(node) for node in rewritten.graph.node}
        self.blocks = sorted({block for block in self.nodes.values() if block and block != LOGITS})
        # Logits stay float32: as uint8 there would be only 256 different ones, and so 256 probabilities. Their weights
        # stay float32 as well: ONNX Runtime would unpack INT8 ones in every run (2 ms for 2048 x 1000).
        self.float_nodes = [
            node.name for node in rewritten.graph.node if node.op_type == "Softmax" or block_of(node) == LOGITS
        ]

    def quantize(self, method: CalibrationName, float_blocks: Iterable[str] = ()) -> Path:
        """Writes the INT8 file and returns its path; `float_blocks` stay float32."""
        blocks = set(float_blocks)
        target = self.folder / f"{'-'.join([method, *sorted(blocks)])[:200]}.onnx"
        with contextlib.redirect_stdout(io.StringIO()):  # quantize_static prints a line for each batch
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
                    "CalibStridedMinMax": 1,  # take the ranges batch by batch
                    "TensorQuantOverrides": {  # a pixel is a uint8 already
                        rewrite.STEM_INPUT: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
                    },
                },
            )
        model = onnx.load(target)
        rewrite.feed_pixels(model)
        rewrite.split_groups(model, self.split_groups)
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
    """Returns the network's block that a node belongs to, from its or its weights' names; None for nodes in between."""
    found = BLOCK.search(" ".join([node.name, *node.input[1:]]))
    return found.group() if found else None


def _quality(file: QuantizedFile) -> tuple[float, float]:
    return file.accuracy, at_least(-file.distance)
