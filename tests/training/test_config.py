"""TrainConfig: what is refused, and that presets and hand-set parts come together."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from training.config import TrainConfig
from training.recipes import AUGMENTATIONS


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
        ({"name": "../up"}, "name"),
        ({"image_size": 8}, "image_size"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "below 1, they are 1.1"),
        ({"warmup_epochs": 2}, "goes with schedule cosine, the schedule is plateau"),
        ({"augmentation": {"spin": 1}}, "spin"),
        ({"learning_rate": float("inf")}, "finite number"),
        ({"gate": {"tolerance": float("nan")}}, "finite number"),
        ({"init": "best"}, "should be random, live or the number of a version"),
    ],
)
def test_a_bad_value_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"data": "d", **change})
