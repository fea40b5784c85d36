"""Images, the probabilities that version 1 gives for them, and tritonclient's inputs of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.app.network import network, random_images, reference

MODEL = "resnext50"
IMAGES = random_images(3, seed=3)
EXPECTED = reference(network(0), IMAGES)


def pixels(module: Any, images: NDArray[np.uint8] = IMAGES) -> Any:
    tensor = module.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return tensor


def files(module: Any, *images: bytes) -> Any:
    tensor = module.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, np.object_))
    return tensor
