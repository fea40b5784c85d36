"""The model package: what training hands to serving, on disk.

`models/<name>/` is a Triton model repository entry::

    config.pbtxt  labels.txt                what Triton reads, of the live version
    ACTIVE  HISTORY  FAILURES               which version is live, which were, which were taken back: activation.py
    7/model.onnx  7/model.cpu.onnx  7/model.int8.onnx  7/model.fp16.onnx
    7/manifest.json  7/golden.npz  7/model.weights.h5  7/report/...

A version is written in a hidden staging folder on the same file system, flushed to disk and renamed in one
step, so that a reader never sees half of one. Nothing here needs TensorFlow.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from training.contract.intervals import Proportion
from training.contract.parity import TOLERANCE
from training.contract.verdict import Verdict

MODEL_FILE = "model.onnx"
CPU_FILE = "model.cpu.onnx"
INT8_FILE = "model.int8.onnx"
FP16_FILE = "model.fp16.onnx"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
WEIGHTS_FILE = "model.weights.h5"  # Keras', float32: what a later training may start from
REPORT_FOLDER = "report"

INPUT_NAME = "image"  # uint8 [N, height, width, 3], RGB
OUTPUT_NAME = "probabilities"  # float32 [N, classes]

Precision = Literal["fp32", "int8", "fp16"]


@dataclass(frozen=True)
class PrecisionFacts:
    """The facts of a precision: its file, the name of its answers in golden.npz, and how far a load may differ."""

    file: str
    golden: str
    tolerance: float  # largest difference of a probability


# fp32 is compared with Keras, int8 and fp16 with their own answers on the training machine, since kernels round
# differently; a CPU that saturates, or a sum that overflows, is far outside
PRECISIONS: dict[Precision, PrecisionFacts] = {
    "fp32": PrecisionFacts(MODEL_FILE, "probabilities", TOLERANCE),
    "int8": PrecisionFacts(INT8_FILE, "probabilities_int8", 0.1),
    "fp16": PrecisionFacts(FP16_FILE, "probabilities_fp16", 0.05),
}


class Preprocessing(BaseModel):
    """How an image becomes the network's input: decode and resize in `training.images`, mean and std in the graph."""

    model_config = ConfigDict(frozen=True)

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    resize_mode: Literal["squash", "crop", "pad"] = "squash"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels (3) of the network's input."""
        return (self.height, self.width, 3)


class Metrics(BaseModel):
    """What the exported classifier reached on one split. Accuracies are fractions of 1."""

    images: int
    loss: float
    accuracy: float
    top5_accuracy: float

    @computed_field(description="the 95 % interval of the accuracy (Wilson), which so many images allow")  # type: ignore[prop-decorator]
    @property
    def accuracy_interval(self) -> tuple[float, float]:
        return Proportion.of(self.accuracy, self.images).interval


class Variant(BaseModel):
    """One file that computes the model at one precision."""

    file: str
    cpu_file: str | None = Field(None, description="the same, rewritten for CPUs, where there is one")
    accuracy: float = Field(description="on the test split, by ONNX Runtime")
    agreement: float | None = Field(
        None, description="share of the validation and test images of which it names the class that float32 names"
    )
    images_per_second: float | None = Field(
        description="one by one, on the CPU that made it; null where others kept that busy, and for FP16, of whose "
        "speed a CPU says nothing"
    )
    calibration: str | None = Field(None, description="how the ranges of INT8 were found")
    float_blocks: list[str] = Field([], description="what an INT8 variant leaves in float32")

    def file_on(self, provider: str) -> str:
        """What is run on an execution provider: "cpu" is ONNX Runtime's own."""
        return (self.cpu_file if provider == "cpu" else None) or self.file


class Parity(BaseModel):
    """Keras against ONNX Runtime on the same images."""

    images: int
    top1_equal: int
    max_abs_difference: float


class DatasetRecord(BaseModel):
    """Which data a version was trained on."""

    path: str
    fingerprint: str
    images: dict[str, int]
    seed: int


class Manifest(BaseModel):
    """`manifest.json` of one version. Unknown fields of a later release are ignored."""

    schema_version: Literal[1] = 1
    name: str
    version: int = 0
    created: datetime
    labels: list[str] = Field(min_length=2)
    preprocessing: Preprocessing
    variants: dict[str, Variant]
    metrics: dict[str, Metrics]
    parity: Parity
    config: dict[str, Any]
    dataset: DatasetRecord
    parameters: dict[str, int]
    training_seconds: float
    libraries: dict[str, str]
    parent: int | None = Field(None, description="the version that was live when this one was published")
    init_version: int | None = Field(None, description="the version whose weights it started from, if any")
    run: str | None = Field(None, description="name of the run's folder; the job's id")
    gate: Verdict | None = None
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of every other file, by relative path")
