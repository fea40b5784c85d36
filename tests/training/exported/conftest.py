"""The exported graph of the trained run, and images to compare answers on."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.training.conftest import Trained


@pytest.fixture
def model(trained: Trained) -> onnx.ModelProto:
    return onnx.load(trained.repository.path(1) / "model.onnx")


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, 32, 32, 3), np.uint8)
    return np.concatenate([noise, np.full((1, 32, 32, 3), 255, np.uint8), np.zeros((1, 32, 32, 3), np.uint8)])
