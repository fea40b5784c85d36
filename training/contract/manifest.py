"""The model package that training hands to serving, on disk.

`models/<name>/` is a Triton model repository entry::

    config.pbtxt  labels.txt                the active version, described for Triton
    ACTIVE  HISTORY  FAILURES               which version is active, which were, which were taken back: activation.py
    7/model.onnx  7/model.cpu.onnx  7/model.int8.onnx  7/model.fp16.onnx
    7/manifest.json  7/golden.npz  7/model.weights.h5  7/report/...

A version is written in a hidden staging folder on the same file system, flushed to disk and renamed in one
step, so that a reader never sees half a version. Nothing here needs TensorFlow.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    computed_field,
    field_validator,
    model_validator,
)

from training.contract.architecture import Architecture
from training.contract.intervals import Proportion
from training.contract.parity import TOLERANCE
from training.contract.verdict import Verdict

MODEL_FILE = "model.onnx"
CPU_FILE = "model.cpu.onnx"
INT8_FILE = "model.int8.onnx"
FP16_FILE = "model.fp16.onnx"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
WEIGHTS_FILE = "model.weights.h5"  # Keras' weights in float32; a later training may start from them
REPORT_FOLDER = "report"

INPUT_NAME = "image"  # uint8 [N, height, width, 3], RGB
OUTPUT_NAME = "probabilities"  # float32 [N, classes]

Precision = Literal["fp32", "int8", "fp16"]


@dataclass(frozen=True)
class PrecisionFacts:
    """The facts of a precision: its file, the name of its answers in golden.npz, and the tolerance at load."""

    file: str
    golden: str
    tolerance: float  # largest allowed difference of a probability


# fp32 is compared with Keras, int8 and fp16 with their own answers on the training machine, since kernels round
# differently; a saturating CPU or an overflow is far outside
PRECISIONS: dict[Precision, PrecisionFacts] = {
    "fp32": PrecisionFacts(MODEL_FILE, "probabilities", TOLERANCE),
    "int8": PrecisionFacts(INT8_FILE, "probabilities_int8", 0.1),
    "fp16": PrecisionFacts(FP16_FILE, "probabilities_fp16", 0.05),
}


class Preprocessing(BaseModel):
    """The steps from an image to the network's input: resize in `training.images`, mean and std in the graph."""

    model_config = ConfigDict(frozen=True)

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    resize_mode: Literal["squash", "crop", "pad"] = "squash"
    resize: int | None = Field(
        None,
        gt=0,
        description="short side before the crop, in pixels, as torchvision's Resize has it; null where the crop is as "
        "large as the image allows",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _resize_leaves_a_crop(self) -> Self:
        if self.resize is None:
            return self
        if self.resize_mode != "crop":
            raise ValueError(f"resize goes with resize_mode crop, the mode is {self.resize_mode}")
        if self.resize < max(self.height, self.width):
            raise ValueError(
                f"resize should be at least the size of the crop, {max(self.height, self.width)}, it is {self.resize}"
            )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels (3) of the network's input."""
        return (self.height, self.width, 3)


class SplitMetrics(BaseModel):
    """The exported classifier's figures on one split. Accuracies are fractions of 1."""

    images: int
    loss: float
    accuracy: float
    top5_accuracy: float

    @computed_field(description="the accuracy's 95 % interval (Wilson)")  # type: ignore[prop-decorator]
    @property
    def accuracy_interval(self) -> tuple[float, float]:
        return Proportion.of(self.accuracy, self.images).interval


def _within_version(path: str) -> str:
    """Returns a file's path below the folder of a version. Raises ValueError when it leads elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or ".." in parts or path.startswith("/") or "\\" in path or "\0" in path:
        raise ValueError(f"a file's path should lead to a file below the version's folder, it is {path[:80]!r}")
    return path


FilePath = Annotated[str, AfterValidator(_within_version)]


class Variant(BaseModel):
    """One file of a version, which computes the model at one precision."""

    file: FilePath
    cpu_file: FilePath | None = Field(None, description="the same model rewritten for CPUs; null where there is none")
    accuracy: float | None = Field(
        None, description="on the test split, by ONNX Runtime; null where no labeled images measured it"
    )
    agreement: float | None = Field(
        None,
        description="share of the validation and test images, or of the images that judged a version without them, on "
        "which it names the same class as float32",
    )
    images_per_second: float | None = Field(
        description="one image at a time, on the CPU that made it; null where other processes kept that CPU busy, and "
        "for FP16, whose speed a CPU cannot tell"
    )
    calibration: str | None = Field(None, description="method that found the ranges of INT8")
    float_blocks: list[str] = Field([], description="blocks of the network that an INT8 variant keeps in float32")

    def file_on(self, provider: str) -> str:
        """Returns the file that an execution provider runs; "cpu" is ONNX Runtime's own provider."""
        return (self.cpu_file if provider == "cpu" else None) or self.file


class Parity(BaseModel):
    """A comparison of Keras and ONNX Runtime on the same images."""

    images: int
    top1_equal: int
    max_abs_difference: float


class DatasetRecord(BaseModel):
    """The data that a version was trained on."""

    path: str
    fingerprint: str
    images: dict[str, int]
    seed: int


class WeightsOrigin(BaseModel):
    """The published weights that a version descends from."""

    name: str
    origin: str = Field(description="where they were published")
    revision: str | None = None
    licence: str
    sha256: str


class Manifest(BaseModel):
    """`manifest.json` of one version. Unknown fields of a later release are ignored.

    `config` is the run's TrainConfig as it was; the architecture is in it too, for releases that read it there.
    """

    schema_version: Literal[1] = 1
    name: str
    version: int = 0
    created: datetime
    labels: list[str] = Field(min_length=2)
    preprocessing: Preprocessing
    variants: dict[str, Variant]
    metrics: dict[str, SplitMetrics] = Field(description="by split; empty where no labeled images measured it")
    parity: Parity
    config: dict[str, Any]  # Any: JSON whose form is another release's
    architecture: Architecture | None = Field(None, description="null where this release cannot read it")
    dataset: DatasetRecord | None = Field(
        None, description="null where published weights became a version without a training"
    )
    parameters: dict[str, int]
    training_seconds: float
    libraries: dict[str, str]
    parent: int | None = Field(None, description="the version that was active when this one was published")
    init_version: int | None = Field(None, description="the version whose weights the training started from, if any")
    init: str | None = Field(
        None,
        description="the weights that the training started from, as weights:NAME or MODEL@VERSION; null for random",
    )
    method: str | None = Field(
        None, description="head, finetune or scratch; null where an earlier release trained, and without a training"
    )
    backbone: str | None = Field(
        None, description="stands for all parameters but the head's; null where the training changed them"
    )
    weights: WeightsOrigin | None = Field(None, description="the published weights that this version descends from")
    run: str | None = Field(None, description="name of the run's folder, which is the job's id")
    gate: Verdict | None = None
    files: dict[FilePath, str] = Field(
        default_factory=dict, description="SHA-256 of every other file, by relative path"
    )

    @model_validator(mode="before")
    @classmethod
    def _take_architecture_from_config(cls, data: Any) -> Any:  # Any: whatever is to be validated
        """Reads manifests of earlier releases, which have the architecture in their config alone."""
        if isinstance(data, dict) and isinstance(config := data.get("config"), dict):
            return {"architecture": config.get("architecture"), **data}
        return data

    @field_validator("architecture", mode="wrap")
    @classmethod
    def _pass_over_unknown_architecture(
        cls,
        value: Any,  # Any: whatever is to be validated
        validate: ValidatorFunctionWrapHandler,
    ) -> Architecture | None:
        """Accepts an architecture of a later release: a version can be served without knowing it."""
        try:
            architecture: Architecture | None = validate(value)
        except ValidationError:
            return None
        return architecture
