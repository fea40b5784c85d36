"""Classifies with a published model outside the service: arrays, files, a folder. Nothing here needs TensorFlow."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.contract.manifest import INPUT_NAME, OUTPUT_NAME, Manifest
from training.contract.repository import ModelRepository
from training.datasets.layout import DatasetError, Sample, classes_of, reading_of, samples_of
from training.datasets.listing import entries, text
from training.datasets.report import Unreadable
from training.errors import few
from training.images.decode import ImageError, decode
from training.system import cpu

BATCH = 32
ROUNDS, CALLS = 3, 3  # of timing: calls of each classifier in a round
BUSY = 0.1  # share of the cores; with more in use by others a measured speed says little

Uint8Images = NDArray[np.uint8]  # [N, height, width, 3] RGB
Probabilities = NDArray[np.float32]  # [N, classes]
Classifier = Callable[[Uint8Images], Probabilities]


def onnx_classifier(path: Path) -> Classifier:
    """Returns an ONNX file on ONNX Runtime's CPU provider as a function of uint8 images."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def classify(images: Uint8Images) -> Probabilities:
        return np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0] for batch in batches(images)])

    return classify


def published(repository: ModelRepository, version: int) -> tuple[Manifest, Classifier]:
    """Returns a version's manifest and its float32 classifier, as a CPU serves it. Raises ContractError."""
    manifest = repository.manifest(version)
    return manifest, onnx_classifier(repository.path(version) / manifest.variants["fp32"].file_on("cpu"))


def folder_to_measure(folder: Path, manifest: Manifest, split: str | None = None) -> tuple[Path, bool]:
    """Returns the folder that holds the classes to measure on, and whether it holds nothing but `split`.

    It is `folder/<split>`, or `folder/test` without `split`. Without split folders it is `folder`. If only this split
    has no folder, it is the train folder that the split was dealt from. Enclosing folders are skipped, as for a
    training. Raises DatasetError.
    """
    if any(text(path.name) in manifest.labels for path in entries(folder)[0]):
        return folder, False
    reading = reading_of(folder)
    if not reading.splits:
        return reading.root, False
    if given := reading.splits.get(split or "test"):
        return given, split is not None
    if split and (train := reading.splits.get("train")):
        return train, False
    raise DatasetError(f"{folder} has splits and no {split or 'test'}: name the folder whose images to measure on")


def read_folder(
    folder: Path, manifest: Manifest, skip: Callable[[Unreadable], object] = lambda _: None
) -> tuple[Uint8Images, NDArray[np.int32], list[str]]:
    """Returns images, labels int32 [N] and names of `folder/<class>/*`.

    A file that is no usable image is left out, and `skip` is called with it. Raises DatasetError when the model does
    not know a class, and when there is no image.
    """
    classes = classes_of(folder, folder)
    if unknown := sorted(set(classes) - set(manifest.labels)):
        raise DatasetError(f"{folder} has the classes {few(unknown)}; the model knows {few(manifest.labels)}")
    samples = samples_of(classes, manifest.labels)
    if not samples:
        raise DatasetError(f"{folder} should hold images in folders named as the model's classes: it holds none")
    images: list[Uint8Images] = []
    read: list[Sample] = []
    skipped: list[str] = []
    for sample in samples:
        try:
            images.append(decode(sample.path, manifest.preprocessing))
            read.append(sample)
        except (ImageError, OSError) as error:
            bad = Unreadable.of(sample.name, error)
            skipped.append(str(bad))
            skip(bad)
    if not read:
        raise DatasetError(f"{folder} should hold images, none of its files is one: {few(skipped, quote=False)}")
    return np.stack(images), np.array([sample.label for sample in read], np.int32), [sample.name for sample in read]


def batches(images: Uint8Images) -> Iterator[Uint8Images]:
    """Yields the images in contiguous batches of at most 32."""
    return (np.ascontiguousarray(images[i : i + BATCH]) for i in range(0, len(images), BATCH))


def images_per_second(
    classifiers: Sequence[Classifier], images: Uint8Images, stat: Path = cpu.STAT
) -> list[float] | None:
    """Returns each classifier's images/s on this machine, one image at a time; None if other processes kept it busy.

    The best of nine calls counts. The classifiers take turns in three rounds, so that a busy moment hits all of them.
    """
    best = [math.inf] * len(classifiers)
    with cpu.others(stat) as share:
        for _ in range(ROUNDS):
            for i, classify in enumerate(classifiers):
                classify(images[:1])  # warm-up
                best[i] = min(best[i], *(_seconds(classify, images[:1]) for _ in range(CALLS)))
    return None if share() > BUSY else [1 / seconds for seconds in best]


def _seconds(classify: Classifier, images: Uint8Images) -> float:
    start = time.perf_counter()
    classify(images)
    return time.perf_counter() - start
