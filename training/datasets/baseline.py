"""The accuracy that a dataset gives without a network, in seconds. A network has to be better."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2gray
from skimage.feature import hog
from sklearn.ensemble import ExtraTreesClassifier

from training.contract.manifest import Preprocessing
from training.datasets.layout import Sample
from training.datasets.loading import Split, load, spread
from training.datasets.report import Baseline

SIDE = 64  # pixels
MOST = {"train": 2000, "test": 1000}  # images
TREES = 300
BINS = 4  # of each color: 64 in all
CELL = (8, 8)  # pixels
CHUNK = 256  # images in memory at once


def baseline(samples: list[Sample], preprocessing: Preprocessing, folder: Path) -> Baseline:
    """Trains extremely randomized trees on color histograms and HOG of checked files, and tests them.

    At most 2,000 images train and 1,000 test, evenly spread, as the network would see them but at 64 x 64. `folder`
    may hold their pixels. HOG: Dalal and Triggs, "Histograms of oriented gradients for human detection" (2005). Raises
    DatasetError when a file has changed since the check.
    """
    begun = time.monotonic()
    forest = ExtraTreesClassifier(TREES, n_jobs=-1, random_state=0)
    features, labels = {}, {}
    for split, most in MOST.items():
        part = [sample for sample in samples if sample.split == split]
        chosen = [part[row] for row in spread(len(part), most)]
        parts = [chosen[i : i + CHUNK] for i in range(0, len(chosen), CHUNK)]
        features[split] = np.concatenate([_features(load(p, preprocessing, folder, (split,))[split]) for p in parts])
        labels[split] = np.array([sample.label for sample in chosen])
    forest.fit(features["train"], labels["train"])
    right = forest.predict(features["test"]) == labels["test"]
    return Baseline(accuracy=float(right.mean()), images=len(right), seconds=round(time.monotonic() - begun, 1))


def _features(split: Split) -> NDArray[np.float32]:
    """Returns float32 [N, features]."""
    small = (
        np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in split.images
    )
    return np.stack([np.concatenate([_colors(image), _edges(image)]) for image in small])


def _colors(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    counts, _ = np.histogramdd(image.reshape(-1, 3), BINS, [(0, 256)] * 3)
    return (counts.ravel() / (image.shape[0] * image.shape[1])).astype(np.float32)


def _edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    histograms: NDArray[np.float64] = hog(rgb2gray(image), pixels_per_cell=CELL, cells_per_block=(2, 2))
    return histograms.astype(np.float32)
