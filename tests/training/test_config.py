"""TrainConfig: what is refused, and that presets and hand-set parts come together."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from training.config import TrainConfig
from training.recipes import AUGMENTATIONS, RECIPES


def test_the_defaults_are_the_tutorials() -> None:
    config = TrainConfig(data=Path("d"))
    assert (config.optimizer, config.learning_rate, config.schedule) == ("adam", 1e-3, "plateau")
    assert config.early_stopping_patience == 8
    part = config.augmentation
    assert (part.rotation, part.width_shift, part.height_shift, part.shear, part.zoom) == (20, 0.2, 0.2, 0.2, 0.2)
    assert part.horizontal_flip


def test_parts_set_by_hand_come_in_place_of_the_presets() -> None:
    config = TrainConfig.model_validate({"data": "d", "augment": "characters", "augmentation": {"rotation": 3}})
    assert config.augmentation == AUGMENTATIONS["characters"].model_copy(update={"rotation": 3})


def test_a_record_reads_back_the_same() -> None:
    config = TrainConfig.model_validate({"data": "d", "augment": "none", "augmentation": {"zoom": 0.5}})
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochz": 3}, "epochz"),
        ({"epochs": 0}, "epochs"),
        ({"augment": "wild"}, "augment"),
        ({"recipe": "best"}, "recipe"),
        ({"augmentation": {"mixup": 0.6, "cutmix": 0.6}}, "mixed once; they are 1.2"),
        ({"augmentation": {"hue": 0.6}}, "hue"),
        ({"ema": 1}, "ema"),
        ({"name": "../up"}, "name"),
        ({"image_size": 8}, "image_size"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "below 1, they are 1.1"),
        ({"warmup_epochs": 2}, "goes with schedule cosine, the schedule is plateau"),
        ({"augmentation": {"spin": 1}}, "spin"),
        ({"learning_rate": float("inf")}, "finite number"),
        ({"gate": {"tolerance": float("nan")}}, "finite number"),
        (
            {"init": "best@0"},
            "should be auto, random, live, the number of a version, MODEL",
        ),
        ({"init": "weights:../up"}, "a name should have"),
        ({"init": "model:best"}, "weights:NAME"),
        ({"method": "heads"}, "method"),
        ({"freeze": "stages:9"}, "freeze"),
        ({"time_budget": "soon"}, "time_budget"),
        ({"time_budget": "0m"}, "time_budget"),
        ({"epochs": 10_001}, "less than or equal to 10000"),
        ({"batch_size": 8193}, "less than or equal to 8192"),
        ({"image_size": 1025}, "less than or equal to 1024"),
        ({"seed": 2**32}, "less than 4294967296"),
        ({"time_budget": "8761h"}, "less than or equal to 31536000"),
        ({"architecture": {"depths": [3, 201]}}, "less than or equal to 200"),
        ({"architecture": {"cardinality": 10**30}}, "less than or equal to 4096"),
        ({"architecture": {"cardinality": 4096, "base_width": 4096}}, "should have at most 1,000,000,000 parameters"),
    ],
)
def test_a_bad_value_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"data": "d", **change})


OF_ANOTHER_KIND: list[object] = [[], 3, [{}], ["few"]]


@pytest.mark.parametrize("field", ["recipe", "augment", "augmentation"])
@pytest.mark.parametrize("value", OF_ANOTHER_KIND)
def test_a_value_of_another_kind_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainConfig.model_validate({"data": "d", field: value})
    assert {problem["loc"][0] for problem in refused.value.errors()} == {field}


def of(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate({"data": "d", **settings})


def test_the_tutorials_recipe_is_the_default_one() -> None:
    assert of(recipe="tutorial") == of().model_copy(update={"recipe": "tutorial"})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fills_what_is_not_set(name: str) -> None:
    config = of(recipe=name)
    for field, value in RECIPES[name].items():
        assert getattr(config, field) == value
    assert config.augmentation == AUGMENTATIONS[config.augment]
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_single_values_win_over_the_recipe_and_the_recipe_over_the_defaults() -> None:
    config = of(recipe="modern", label_smoothing=0, augmentation={"mixup": 0.5})
    assert (config.label_smoothing, config.ema, config.schedule) == (0, 0.999, "cosine")
    assert config.augmentation == AUGMENTATIONS["modern"].model_copy(update={"mixup": 0.5})
    other = of(recipe="modern", augment="characters")
    assert other.augmentation == AUGMENTATIONS["characters"]


@pytest.mark.parametrize(("epochs", "warmup"), [(None, 3), (5, 0.5), ("200", 20)])
def test_a_recipes_warm_up_is_a_tenth_of_the_epochs(epochs: object, warmup: float) -> None:
    assert of(recipe="few", epochs=epochs).warmup_epochs == pytest.approx(warmup)
    assert of(recipe="few", epochs=epochs, warmup_epochs=1).warmup_epochs == 1
    assert of(recipe="few", epochs=epochs, schedule="constant").warmup_epochs == 0


def test_another_optimizer_does_not_get_the_rate_of_the_recipes() -> None:
    config = of(recipe="few", optimizer="sgd")
    assert (config.learning_rate, config.weight_decay, config.schedule) == (1e-3, 0, "cosine")
    assert of(recipe="few", optimizer="sgd", learning_rate=0.01).learning_rate == 0.01
    assert of(recipe="few", optimizer="adamw") == of(recipe="few")
