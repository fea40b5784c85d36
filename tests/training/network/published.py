"""A small network in torchvision's layout, with PyTorch's answers to a photo. `tests/parity/reference.py` makes it."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "data/published"
FILE = FOLDER / "small.safetensors"


def photo() -> NDArray[np.uint8]:
    """Returns the photo, uint8 [1, height, width, 3] RGB."""
    return np.asarray(Image.open(FOLDER / "photo.png"))[None]


def answers() -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Returns PyTorch's logits, and the mean of each channel of each block's output."""
    found = json.loads((FOLDER / "answers.json").read_text())
    blocks = {name: np.array(means, np.float32) for name, means in found["blocks"].items()}
    return np.array(found["logits"], np.float32), blocks
