"""The pixels that a check keeps for the phases after it."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.training.datasets.folders import SIZE, given
from training.contract.manifest import Preprocessing
from training.datasets import kept_pixels
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.kept_pixels import PixelWriter
from training.datasets.layout import DatasetError, Sample
from training.datasets.loading import load


def checked(images: Path, folder: Path) -> list[Sample]:
    """Checks a dataset and keeps its pixels in `folder`."""
    dataset = list_dataset(given(images), 0.2, 0.2, 0)
    with PixelWriter(folder, SIZE, len(dataset.samples)) as pixels:
        return check_dataset(dataset, SIZE, keep=pixels.add)[1]


def delete(samples: list[Sample]) -> None:
    for sample in samples:
        sample.path.unlink()


def test_a_file_is_decoded_once(tmp_path: Path) -> None:
    samples = checked(tmp_path / "images", tmp_path / "run")
    decoded = load(samples, SIZE, tmp_path / "empty")
    delete(samples)
    kept = load(samples, SIZE, tmp_path / "run")
    for split, part in decoded.items():
        np.testing.assert_array_equal(kept[split].images, part.images)
        np.testing.assert_array_equal(kept[split].labels, part.labels)


def test_another_run_has_them_too(tmp_path: Path) -> None:
    samples = checked(tmp_path / "images", tmp_path / "run")
    delete(samples)
    (tmp_path / "head").mkdir()
    kept_pixels.copy(tmp_path / "run", tmp_path / "head")
    kept_pixels.remove(tmp_path / "run")
    assert len(load(samples, SIZE, tmp_path / "head")["train"]) == 6
    assert not list((tmp_path / "run").iterdir())
    kept_pixels.copy(tmp_path / "run", tmp_path / "head")  # nothing is kept any more: nothing to copy


@pytest.mark.parametrize("damage", ["size", "index", "pixels", "cut", "shorter"])
def test_what_is_not_whole_or_of_another_size_is_decoded(tmp_path: Path, damage: str) -> None:
    run, size = tmp_path / "run", SIZE
    samples = checked(tmp_path / "images", run)
    if damage == "size":
        size = Preprocessing(height=16, width=16)
    elif damage == "index":
        (run / "pixels.json").write_text("{}")
    elif damage == "pixels":
        (run / "pixels.bin").unlink()
    else:
        os.truncate(run / "pixels.bin", {"cut": 1000, "shorter": 5 * 32 * 32 * 3}[damage])
    assert load(samples, size, run)["test"].images.shape[1:] == size.shape
    delete(samples)
    with pytest.raises(DatasetError, match="was readable when the dataset was checked"):
        load(samples, size, run)


def test_many_images_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_pixels, "MOST_BYTES", 17 * 32 * 32 * 3)  # there are 18
    checked(tmp_path / "images", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_check_that_fails_keeps_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with PixelWriter(tmp_path, SIZE, 2) as pixels:
            pixels.add("a", np.zeros((32, 32, 3), np.uint8))
            raise DatasetError("a class is empty")

    with pytest.raises(DatasetError, match="a class is empty"):
        fails()
    assert not list(tmp_path.iterdir())
