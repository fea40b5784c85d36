"""Weights that name the photos of known things: a small network whose head was solved for them."""

from pathlib import Path

import numpy as np

from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.images.decode import decode
from training.network.published_weights import tensors_of
from training.network.resnext import build
from training.network.runtime import keras
from training.weights.known_photos import KNOWN_PHOTOS
from training.weights.presets import imagenet_labels
from training.weights.tensors import write_tensors

SEEING = Architecture(depths=(1, 1), cardinality=4, base_width=4, stem_width=16)


def write_seeing(file: Path, preprocessing: Preprocessing, blind: int = 0) -> Path:
    """Writes weights with ImageNet's labels that name all photos rightly, but for the first `blind` ones."""
    labels = imagenet_labels()
    keras.utils.set_random_seed(1)
    model = build(SEEING, preprocessing, len(labels))
    images = np.stack([decode(photo.read(), preprocessing) for photo in KNOWN_PHOTOS])
    features = keras.Model(model.input, model.get_layer("pool").output)(images, training=False)
    named = [labels.index(min(photo.labels) if i >= blind else "hen") for i, photo in enumerate(KNOWN_PHOTOS)]
    wanted = 9 * np.eye(len(labels))[named]
    kernel = np.linalg.lstsq(keras.ops.convert_to_numpy(features).astype(np.float64), wanted, rcond=None)[0]
    model.get_layer("logits").set_weights([kernel.astype(np.float32), np.zeros(len(labels), np.float32)])
    write_tensors(file, tensors_of(model))
    return file
