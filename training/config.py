"""The settings of a training: one model for the command line's flags, a TOML file, the API's body, the run's record."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.contract.names import Name

MODEL_NAME = "resnext50"  # where none is given
DATA = "DIR/{train,val,test}/<class>/* or DIR/<class>/*, which is split"
INIT = "^(random|live|[1-9][0-9]*)$"


def _usable_init(text: str) -> str:
    if not re.fullmatch(INIT, text):
        raise PydanticCustomError("init", "should be random, live or the number of a version")
    return text


Init = Annotated[str, AfterValidator(_usable_init), WithJsonSchema({"type": "string", "pattern": INIT})]


class Augmentation(BaseModel):
    """Random geometry applied to each training image, as one affine map with one resampling."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation: float = Field(20.0, ge=0, le=180, description="at most this many degrees either way")
    width_shift: float = Field(0.2, ge=0, lt=1, description="at most this fraction of the width either way")
    height_shift: float = Field(0.2, ge=0, lt=1, description="at most this fraction of the height either way")
    shear: float = Field(0.2, ge=0, lt=45, description="shear angle in degrees, at most, as Keras' shear_range")
    zoom: float = Field(0.2, ge=0, lt=1, description="scale of each axis drawn from 1 - zoom to 1 + zoom")
    horizontal_flip: bool = Field(True, description="mirror every other image; off where left and right differ")


AUGMENTATIONS = {
    "none": Augmentation(rotation=0, width_shift=0, height_shift=0, shear=0, zoom=0, horizontal_flip=False),
    "tutorial": Augmentation(),
    "characters": Augmentation(
        rotation=10, width_shift=0.1, height_shift=0.1, shear=0, zoom=0.1, horizontal_flip=False
    ),
}


class Gate(BaseModel):
    """When a trained candidate becomes the live version. Accuracies are fractions of 1, on the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    policy: Literal["better_or_equal", "better", "always", "never"] = Field(
        "better_or_equal",
        description="than the live version on the same test images, beyond chance: better_or_equal keeps a worse one "
        "aside, better also one that cannot be told apart, never every one, always none",
    )
    significance: float = Field(
        0.05, gt=0, lt=1, description="p-value of McNemar's exact test below which a difference is no chance"
    )
    tolerance: float = Field(
        0.0, ge=0, le=1, description="how far the accuracy of one that is worse may stay below the live version's"
    )
    class_tolerance: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of a class's test images that the live version names right and the candidate may lose; two "
        "images in any case",
    )
    minimum: float | None = Field(
        None,
        ge=0,
        le=1,
        description="accuracy to reach in any case; by default more than the most frequent class",
    )
    keep_classes: bool = Field(False, description="refuse a candidate that lacks a class of the live version")
    precision_budget: float = Field(
        0.005,
        ge=0,
        le=1,
        description="share of the validation and test images that INT8 or FP16 may name wrong and float32 right, less "
        "those the other way round; two images in any case; else it is left out",
    )
    agreement: float = Field(
        0.9, ge=0, le=1, description="share of these images on which INT8 or FP16 should name float32's class"
    )
    dry_run: bool = Field(False, description="report the verdict and publish nothing")


CalibrationName = Literal["minmax", "percentile", "entropy"]


class Int8(BaseModel):
    """The variant for CPUs, about three times as fast as float32."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(True, description="make it; the service takes it where it is faster")
    calibration_images: int = Field(128, ge=1, description="training images, at most, that the ranges are taken from")
    methods: tuple[CalibrationName, ...] = Field(
        ("minmax", "percentile", "entropy"),
        min_length=1,
        description="how to take the ranges: the first that costs no accuracy on val images, or the best",
    )


class Fp16(BaseModel):
    """The variant for GPUs; it is made on every machine, since a version may be served on another one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(True, description="make it; the service takes it on a GPU where it is faster, never on a CPU")


class Recipe(BaseModel):
    """How a training goes, whatever its images and its model are called."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: int = Field(224, ge=32, le=1024, description="height and width of the input in pixels")
    resize_mode: Literal["squash", "crop", "pad"] = Field("squash", description="how an image meets a square")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field("bilinear", description="of the resize")
    architecture: Architecture = Architecture()

    init: Init = Field(
        "random",
        description="where the weights start: random, those of the live version, or of the version with this number",
    )

    val_fraction: float = Field(0.15, gt=0, lt=1, description="of each class, where DIR has no val of its own")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="of each class, where DIR has no test of its own")
    strict: bool = Field(False, description="fail on an unreadable file; by default it is skipped and listed")

    augment: Literal["none", "tutorial", "characters"] = Field("tutorial", description="preset of the augmentation")
    augmentation: Augmentation = Field(Augmentation(), description="parts set by hand, in place of the preset's")

    epochs: int | None = Field(
        None,
        ge=1,
        description="at most this many passes over the training images; by default 30, and where one has fewer than 16 "
        "steps, as many as make 480 steps",
    )
    batch_size: int = Field(32, ge=1, description="images a step, over all devices")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="sgd is Nesterov with momentum 0.9")
    learning_rate: float = Field(1e-3, gt=0, description="the peak, where the schedule varies it")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, as in AdamW; off for norms and biases")
    schedule: Literal["plateau", "cosine", "constant"] = Field(
        "plateau",
        description="plateau halves the rate, down to 1e-6, after 3 epochs without a better val loss, each of at least "
        "16 steps",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        description="linear warm-up from 0, with schedule cosine; each of at least 16 steps unless epochs is set",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    class_weight: Literal["none", "balanced"] = Field("none", description="balanced weighs rare classes up")
    early_stopping_patience: int = Field(
        8,
        ge=0,
        description="epochs without a better val accuracy, each of at least 16 steps; 0 never stops",
    )

    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints within an epoch; 0: at its end only")

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "auto", description="auto: mixed on a GPU with tensor cores, else float32"
    )
    seed: int = Field(0, ge=0, description="of the split, the initial weights, the shuffle and the augmentation")
    deterministic: bool = Field(False, description="the same numbers from the same seed on the same machine; slower")
    tensorboard: bool = Field(True, description="write TensorBoard logs with weight histograms")

    int8: Int8 = Int8()
    fp16: Fp16 = Fp16()
    gate: Gate = Gate()

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_the_augmentation(cls, data: Any) -> Any:
        if not isinstance(data, dict) or isinstance(data.get("augmentation"), Augmentation):
            return data
        preset = AUGMENTATIONS.get(data.get("augment", "tutorial"))  # an unknown one is the field's own complaint
        return {**data, "augmentation": {**preset.model_dump(), **(data.get("augmentation") or {})}} if preset else data

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

    @property
    def preprocessing(self) -> Preprocessing:
        """What `training.images.decode` does to this run's images."""
        return Preprocessing(
            height=self.image_size,
            width=self.image_size,
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
        )


class TrainConfig(Recipe):
    """Everything that decides a training run."""

    data: Path = Field(description=DATA)
    name: Name = Field(MODEL_NAME, description="model name in the repository")


def flag(field: str) -> str:
    """`--image-size` of image_size."""
    return f"--{field.replace('_', '-')}"
