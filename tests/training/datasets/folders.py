"""Folders of pictures in the layouts that users have, and the error for one that is no dataset."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from training.contract.manifest import Preprocessing
from training.datasets.dataset import list_dataset
from training.datasets.layout import DatasetError

SIZE = Preprocessing(height=32, width=32)
PHOTO = Image.fromarray(load_sample_image("china.jpg"))


def write(path: Path, number: int) -> Path:
    """Writes a JPEG: a 64 x 48 piece of a photograph, a different one for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top = number % 30 * 18, number // 30 * 16
    PHOTO.crop((left, top, left + 64, top + 48)).save(path, "JPEG", quality=90)
    return path


def flat(folder: Path, count: int = 20, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    for rank, label in enumerate(labels):
        for i in range(count):
            write(folder / label / f"{i:03}.jpg", rank * count + i)
    return folder


def given(folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    for rank, split in enumerate(splits):
        for i in range(6):
            write(folder / split / ("cat", "dog")[i % 2] / f"{i}.jpg", rank * 6 + i)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DatasetError) as error:
        list_dataset(folder, 0.2, 0.2, 0)
    return str(error.value)


def few(source: Path, folder: Path, count: int = 40) -> Path:
    """Copies the first images of each class."""
    for label in source.iterdir():
        (folder / label.name).mkdir(parents=True)
        for image in sorted(label.iterdir())[:count]:
            shutil.copy(image, folder / label.name)
    return folder
