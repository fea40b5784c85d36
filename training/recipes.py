"""Recipes and the augmentation's presets: named sets of values for the settings of a training."""

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

EPOCHS = 30  # of a training that names no number
SHORT_EPOCH = 16  # steps: an epoch of fewer counts as part of one, so that few images still get enough steps
WARMUP = 0.1  # share of the epochs, where a recipe warms up


class Augmentation(BaseModel):
    """Random changes of each training image. Each setting is one strength, and 0 switches it off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation: float = Field(20.0, ge=0, le=180, description="largest rotation either way, in degrees")
    width_shift: float = Field(0.2, ge=0, lt=1, description="largest shift either way, as a fraction of the width")
    height_shift: float = Field(0.2, ge=0, lt=1, description="largest shift either way, as a fraction of the height")
    shear: float = Field(0.2, ge=0, lt=45, description="largest shear angle in degrees, as Keras' shear_range")
    zoom: float = Field(0.2, ge=0, lt=1, description="the scale of each axis is drawn from 1 - zoom to 1 + zoom")
    horizontal_flip: bool = Field(
        True, description="mirror half of the images at random; switch it off where left and right differ"
    )
    crop: float = Field(
        0.0,
        ge=0,
        le=0.95,
        description="largest share of the area that a random crop leaves out; what remains, with an aspect ratio from "
        "3/4 to 4/3, is enlarged to the whole image",
    )
    brightness: float = Field(0.0, ge=0, le=1, description="brightness is multiplied by 1 - this to 1 + this")
    contrast: float = Field(0.0, ge=0, le=1, description="contrast is multiplied by 1 - this to 1 + this")
    saturation: float = Field(0.0, ge=0, le=1, description="saturation is multiplied by 1 - this to 1 + this")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest turn of the color circle either way, in turns")
    effects: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the images that get one effect of random strength: autocontrast, equalize, posterize, "
        "solarize, or sharpness",
    )
    erasing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the images in which a random box, 2 to 33 % of the area, is painted over with one color",
    )
    mixup: float = Field(
        0.0, ge=0, le=1, description="share of the images that are blended with another one; so are their targets"
    )
    cutmix: float = Field(
        0.0, ge=0, le=1, description="share of the images that get a box of another one; targets mix by its area"
    )

    @model_validator(mode="after")
    def _an_image_is_mixed_once(self) -> Self:
        if self.mixup + self.cutmix > 1:
            raise ValueError(
                f"mixup + cutmix should be 1 at most, an image is mixed once; they are {self.mixup + self.cutmix:g}"
            )
        return self


_NONE = {"rotation": 0, "width_shift": 0, "height_shift": 0, "shear": 0, "zoom": 0, "horizontal_flip": False}

AUGMENTATIONS = {
    "none": Augmentation.model_validate(_NONE),
    "tutorial": Augmentation(),
    "characters": Augmentation.model_validate(
        _NONE | {"rotation": 10, "width_shift": 0.1, "height_shift": 0.1, "zoom": 0.1}
    ),
    "few": Augmentation.model_validate(
        _NONE | {"horizontal_flip": True, "crop": 0.3, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1}
    ),
    "modern": Augmentation.model_validate(
        _NONE
        | {"horizontal_flip": True, "crop": 0.65, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.02}
        | {"effects": 0.5, "erasing": 0.1, "mixup": 0.25, "cutmix": 0.25}
    ),
}

RECIPES: dict[str, dict[str, Any]] = {  # Any: values of several types
    "tutorial": {},  # the fields' defaults
    "modern": {
        "augment": "modern",
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "label_smoothing": 0.1,
        "ema": 0.999,
        "early_stopping_patience": 0,  # the last epochs, at the lowest rates, are the best
    },
    "few": {
        "augment": "few",
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "early_stopping_patience": 0,
    },
}


def filled(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with the values of their recipe, and of their augmentation's preset, where they have none.

    What a person set wins over the recipe, the recipe over the defaults. Wrong values stay, for their fields to refuse.
    """
    chosen = {**_recipe_for(settings), **settings}
    preset, parts = AUGMENTATIONS.get(_word(chosen.get("augment", "tutorial"))), chosen.get("augmentation")
    if preset and (parts is None or isinstance(parts, dict)):
        chosen["augmentation"] = {**preset.model_dump(), **(parts or {})}
    return chosen


def _recipe_for(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the settings' recipe, without those that a setting makes meaningless."""
    recipe = dict(RECIPES.get(_word(settings.get("recipe")), {}))
    if not recipe:
        return recipe
    if settings.get("schedule", recipe["schedule"]) == "cosine":
        recipe["warmup_epochs"] = WARMUP * _epochs(settings.get("epochs"))
    if settings.get("optimizer", recipe["optimizer"]) != recipe["optimizer"]:
        del recipe["learning_rate"], recipe["weight_decay"]  # SGD hardly moves at AdamW's rate
    return recipe


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _epochs(wanted: Any) -> float:
    try:
        return float(wanted)  # a flag's value is a string here
    except (TypeError, ValueError, OverflowError):
        return EPOCHS


def stretched(epochs: float, steps: int) -> int:
    """Returns `epochs`, or more where an epoch has fewer than 16 `steps`: each then stands for 16 steps."""
    return math.ceil(epochs * max(1, SHORT_EPOCH / steps))
