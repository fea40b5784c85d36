"""Checks on photos of known things whether a file of published weights holds what its record says.

It finds a file of another network, other or shifted labels, and channels in another order. It does not find red and
blue exchanged, nor height and width of kernels (figures in `training/weights/photos/README.md`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.contract.manifest import Preprocessing
from training.images.decode import decode
from training.network.published_weights import load_published
from training.network.resnext import build
from training.network.runtime import keras
from training.weights.known_photos import KNOWN_PHOTOS, Opinion, has_known_labels, require_right
from training.weights.layout import architecture_of
from training.weights.tensors import open_tensors


def check_on_photos(name: str, file: Path, preprocessing: Preprocessing, labels: list[str]) -> list[Opinion]:
    """Returns what the weights in `file` say of each photo, nothing where their labels are not ImageNet's.

    Raises WeightsRejected when they name too few of them, TensorsError for a file that does not hold such weights.
    """
    if not has_known_labels(labels):
        return []
    with open_tensors(file, name) as tensors:
        architecture, _ = architecture_of(tensors.shapes, name)
        model = build(architecture, preprocessing, len(labels))
        load_published(model, tensors)
    images = np.stack([decode(photo.read(), preprocessing) for photo in KNOWN_PHOTOS])
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(model(images, training=False)))
    opinions = opinions_of(probabilities, labels)
    require_right(name, opinions)
    return opinions


def opinions_of(probabilities: NDArray[np.float32], labels: list[str]) -> list[Opinion]:
    """Returns what probabilities [4, classes] of the photos say, in the order of KNOWN_PHOTOS."""
    return [
        Opinion(photo, labels[int(row.argmax())], float(row.max()))
        for photo, row in zip(KNOWN_PHOTOS, probabilities, strict=True)
    ]
