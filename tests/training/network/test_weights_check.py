from pathlib import Path

import pytest

from tests.training.network.photos import write_seeing
from tests.training.weights.files import parameters, written
from training.contract.manifest import Preprocessing
from training.network.weights_check import check_on_photos
from training.weights.known_photos import KNOWN_PHOTOS
from training.weights.layout import LayoutError
from training.weights.presets import imagenet_labels
from training.weights.store import WeightsRejected

SIZE_64 = Preprocessing(height=64, width=64, resize_mode="crop")


def test_weights_that_see_name_every_photo(tmp_path: Path) -> None:
    opinions = check_on_photos("w", write_seeing(tmp_path / "f", SIZE_64), SIZE_64, imagenet_labels())
    assert [opinion.photo for opinion in opinions] == [*KNOWN_PHOTOS]
    assert all(opinion.right and opinion.probability > 0.5 for opinion in opinions)


def test_weights_that_name_two_photos_wrongly_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match="they name 2") as caught:
        check_on_photos("w", write_seeing(tmp_path / "f", SIZE_64, blind=2), SIZE_64, imagenet_labels())
    assert "They say of camera.jpg: hen" in str(caught.value)
    assert "coffee.jpg" not in str(caught.value)


def test_random_weights_are_rejected(tmp_path: Path) -> None:
    file = written(tmp_path / "f", parameters(classes=1000))
    with pytest.raises(WeightsRejected, match="they name 0"):
        check_on_photos("w", file, SIZE_64, imagenet_labels())


def test_weights_with_other_labels_are_not_judged(tmp_path: Path) -> None:
    assert check_on_photos("w", tmp_path / "not read", SIZE_64, ["cat", "dog"]) == []


def test_a_file_of_another_network_is_said(tmp_path: Path) -> None:
    tensors = parameters(classes=1000)
    del tensors["bn1.bias"]
    with pytest.raises(LayoutError, match="it lacks"):
        check_on_photos("w", written(tmp_path / "f", tensors), SIZE_64, imagenet_labels())
