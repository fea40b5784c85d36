"""The settings of a training, one model for command line flags, a TOML file, the API's body and the run's record."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.contract.names import Name, usable_name
from training.recipes import Augmentation, filled

MODEL_NAME = "resnext50"  # the default
# bounds for what is typed wrongly: published recipes go to 600 epochs, and to batches of 8,192 over all devices
MOST_EPOCHS = 10_000
A_YEAR_S = 365 * 24 * 3600
DATA = "folder of images: DIR/{train,val,test}/<class>/*, or DIR/<class>/*, which is then split"
Method = Literal["auto", "head", "finetune", "scratch"]


class InitialWeights(NamedTuple):
    """The weights that `init` names: published ones, or a version's. All fields are None for random weights.

    `model` is None for the run's own model, `version` for the active one.
    """

    weights: str | None = None
    model: str | None = None
    version: int | None = None
    of_version: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a setting `init`. Raises PydanticCustomError, a ValueError."""
        if text in ("auto", "random"):
            return cls()
        if text == "live":
            return cls(of_version=True)
        if re.fullmatch("[1-9][0-9]*", text):
            return cls(version=int(text), of_version=True)
        kind, colon, name = text.partition(":")
        if colon and kind == "weights":
            return cls(weights=usable_name(name))
        model, at, version = text.partition("@")
        if colon or (at and not re.fullmatch("[1-9][0-9]*", version)):
            raise PydanticCustomError(
                "init",
                "should be auto, random, live, the number of a version, MODEL, MODEL@VERSION or weights:NAME",
            )
        return cls(model=usable_name(model), version=int(version) if at else None, of_version=True)


def _usable_init(text: str) -> str:
    InitialWeights.parse(text)
    return text


Init = Annotated[str, AfterValidator(_usable_init)]
DURATION = re.compile(r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _seconds(value: object) -> object:
    """Reads a time such as `1h30m`, `10m` or `45s`, in seconds."""
    if not isinstance(value, str) or not (match := DURATION.fullmatch(value)):
        return value
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (hours * 60 + minutes) * 60 + seconds


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{DURATION.pattern}$"}]}),
]


class Gate(BaseModel):
    """The rules by which a candidate becomes the active version. Accuracies are fractions of 1, on the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    policy: Literal["better_or_equal", "better", "always", "never"] = Field(
        "better_or_equal",
        description="better_or_equal rejects a candidate that is worse than the active version beyond chance, on the "
        "same test images; better also rejects one that cannot be told apart; never rejects all, always none",
    )
    significance: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="a difference is beyond chance when the p-value of McNemar's exact test is below this",
    )
    tolerance: float = Field(
        0.0, ge=0, le=1, description="how far the accuracy of a worse candidate may stay below the active version's"
    )
    class_tolerance: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of a class's test images by which the candidate may fall behind the active version; two "
        "images are always allowed",
    )
    minimum: float | None = Field(
        None,
        ge=0,
        le=1,
        description="accuracy that is always required; by default it has to be above that of naming the most "
        "frequent class",
    )
    keep_classes: bool = Field(False, description="reject a candidate that lacks a class of the active version")
    precision_budget: float = Field(
        0.005,
        ge=0,
        le=1,
        description="share of the validation and test images that an INT8 or FP16 variant may get more wrong than "
        "float32, else it is left out; two images are always allowed",
    )
    agreement: float = Field(
        0.9,
        ge=0,
        le=1,
        description="share of the validation and test images on which an INT8 or FP16 variant has to name float32's "
        "class, else it is left out",
    )
    dry_run: bool = Field(False, description="report the verdict, publish nothing")


CalibrationName = Literal["minmax", "percentile", "entropy"]


class Int8(BaseModel):
    """The INT8 variant for CPUs, about three times as fast as float32."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(True, description="make an INT8 variant; the service uses it where it is faster")
    calibration_images: int = Field(128, ge=1, le=1_000_000, description="most training images to take the ranges from")
    methods: tuple[CalibrationName, ...] = Field(
        ("minmax", "percentile", "entropy"),
        min_length=1,
        description="ways to take the ranges, tried in this order until one costs no accuracy on the val images; "
        "else the best",
    )


class Fp16(BaseModel):
    """The FP16 variant for GPUs, made on every machine: a version may be served elsewhere than it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(
        True, description="make an FP16 variant; the service uses it on a GPU where it is faster, never on a CPU"
    )


class Recipe(BaseModel):
    """The settings of a training without the names of its images and its model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: int = Field(224, ge=32, le=1024, description="height and width of the network's input in pixels")
    resize_mode: Literal["squash", "crop", "pad"] = Field(
        "squash",
        description="how an image is made square: squash distorts it, crop cuts the longer side, pad adds black "
        "borders",
    )
    resize: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="short side before the crop in pixels, with resize_mode crop, as published weights have it; by "
        "default the crop is as large as the image allows",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "bilinear", description="resampling of the resize"
    )
    mean: tuple[Finite, Finite, Finite] = Field(
        Preprocessing.model_fields["mean"].default,
        description="of red, green and blue, where white is 1; taken from each pixel",
    )
    std: tuple[Positive, Positive, Positive] = Field(
        Preprocessing.model_fields["std"].default, description="of red, green and blue; each pixel is divided by it"
    )
    architecture: Architecture = Architecture()

    init: Init = Field(
        "auto",
        description="weights to start from: random, live (those of the active version), the number of a version, MODEL "
        "or MODEL@VERSION, weights:NAME (published weights); auto takes the default of the published weights that are "
        "here, else random ones",
    )
    method: Method = Field(
        "auto",
        description="head trains the last layer alone, in seconds; finetune publishes that head and then trains all "
        "layers from it; scratch trains all layers from the start. auto is scratch from random weights; else "
        "finetune where epochs are asked for, head with fewer than 10 images a class, and with more finetune where a "
        "GPU or time_budget allows it",
    )
    time_budget: Seconds | None = Field(
        None,
        gt=0,
        le=A_YEAR_S,
        description="most time for the training of all layers, as 10m, 1h30m or seconds; by default no limit",
    )
    freeze: str = Field(
        "none",
        pattern=r"^(none|stages:[1-6])$",
        description="stages:N keeps the stem and the first N stages as they were, with method finetune",
    )
    head_rate: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="learning rate of the last layer, as a multiple of the others', in a fine-tuning",
    )

    val_fraction: float = Field(
        0.15, gt=0, lt=1, description="share of each class that becomes the val split, where DIR has none"
    )
    test_fraction: float = Field(
        0.15, gt=0, lt=1, description="share of each class that becomes the test split, where DIR has none"
    )
    strict: bool = Field(False, description="stop at an unreadable file; by default it is skipped and listed")

    recipe: Literal["tutorial", "modern", "few"] | None = Field(
        None,
        description="settings that go together, for all that is not set otherwise: tutorial (the default), modern for "
        "long trainings from random weights, few for fine-tuning with few images",
    )
    augment: Literal["none", "tutorial", "characters", "few", "modern"] = Field(
        "tutorial", description="preset for the augmentation"
    )
    augmentation: Augmentation = Field(Augmentation(), description="single values in place of the preset's")

    epochs: int | None = Field(
        None,
        ge=1,
        le=MOST_EPOCHS,
        description="most passes over the training images; by default 30, or as many as make 480 steps where a pass "
        "has fewer than 16",
    )
    batch_size: int = Field(32, ge=1, le=8192, description="images in a step, over all devices together")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="sgd has Nesterov momentum 0.9")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate, or its peak where the schedule varies it")
    weight_decay: float = Field(
        0.0, ge=0, description="decoupled weight decay, as in AdamW; norms and biases do not decay"
    )
    schedule: Literal["plateau", "cosine", "constant"] = Field(
        "plateau",
        description="course of the learning rate; plateau halves it, down to 1e-6, after 3 epochs without a better val "
        "loss, where each epoch counts at least 16 steps",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        le=MOST_EPOCHS,
        description="epochs of linear warm-up from 0, with schedule cosine only; each counts at least 16 steps "
        "unless epochs is set",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of a moving average of the weights, which is validated and published in their place; "
        "after t steps it is t / (t + 10) at most; 0 averages nothing",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    class_weight: Literal["none", "balanced"] = Field("none", description="balanced gives rare classes more weight")
    early_stopping_patience: int = Field(
        8,
        ge=0,
        le=MOST_EPOCHS,
        description="stop after this many epochs without a better val accuracy, each counting at least 16 steps; 0 "
        "never stops",
    )

    checkpoint_every: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="steps between checkpoints within an epoch, besides one every 10 minutes; 0 adds none",
    )

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "auto", description="precision of the training; auto is mixed on a GPU with tensor cores, else float32"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the split, the initial weights, the shuffle and the augmentation"
    )
    deterministic: bool = Field(False, description="same seed, same machine: same numbers; slower")
    tensorboard: bool = Field(True, description="write TensorBoard logs with weight histograms")

    int8: Int8 = Int8()
    fp16: Fp16 = Fp16()
    gate: Gate = Gate()

    @model_validator(mode="before")
    @classmethod
    def _recipe_and_preset_fill_what_is_not_set(cls, data: Any) -> Any:
        return filled(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _fractions_leave_training_images(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction should stay below 1, they are {self.val_fraction + self.test_fraction:g}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_has_a_schedule(self) -> Self:
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError(f"warmup_epochs goes with schedule cosine, the schedule is {self.schedule}")
        return self

    @model_validator(mode="after")
    def _resize_leaves_a_crop(self) -> Self:
        if self.resize is not None and self.resize_mode != "crop":
            raise ValueError(f"resize goes with resize_mode crop, the mode is {self.resize_mode}")
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize should be at least image_size, {self.image_size}, it is {self.resize}")
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """Returns how `training.images.decode` prepares this run's images."""
        return Preprocessing(
            height=self.image_size,
            width=self.image_size,
            resize_mode=self.resize_mode,
            resize=self.resize,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


class TrainConfig(Recipe):
    """All settings of a training run."""

    data: Path = Field(description=DATA)
    name: Name = Field(MODEL_NAME, description="model name in the repository")


def flag(field: str) -> str:
    """Returns a field's flag, `--image-size` for image_size."""
    return f"--{field.replace('_', '-')}"
