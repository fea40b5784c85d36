"""Compares how fast images reach the network: our pipeline and the ImageDataGenerator of Keras' tutorials.

Both get the same folder of JPEGs (pieces of two real photographs, 500 x 375), the same augmentation, 224 x 224, batches
of 32 and no network behind it. Rounds are interleaved, each from a fresh object; `first` includes all reading
and decoding. `--presets` compares our presets of the augmentation in place of the generators.
"""

import argparse
import contextlib
import functools
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.machine import machine
from training.config import TrainConfig
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.loading import load
from training.network.pipeline import steps_per_epoch, training_batches
from training.network.runtime import keras
from training.recipes import AUGMENTATIONS, Augmentation

TUTORIAL = AUGMENTATIONS["tutorial"]
CORES = len(os.sched_getaffinity(0))
warnings.simplefilter("ignore", DeprecationWarning)  # ImageDataGenerator calls SciPy by an old name

Epoch = Callable[[], Iterator[np.ndarray]]


def write_photos(folder: Path, train: int) -> None:
    """Writes `train` JPEGs for training and the three that val and test need, in two classes."""
    random = np.random.default_rng(0)
    for label in ("china", "flower"):
        photo = Image.fromarray(load_sample_image(f"{label}.jpg"))
        for split, count in (("train", train // 2), ("val", 3), ("test", 3)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                left, top = int(random.integers(photo.width - 500)), int(random.integers(photo.height - 375))
                piece = photo.crop((left, top, left + 500, top + 375))
                piece.save(folder / split / label / f"{i:04}.jpg", quality=90)


def ours(folder: Path, size: int, batch: int, augmentation: Augmentation = TUTORIAL) -> Epoch:
    """Reads and decodes all images; each call then is one augmented epoch."""
    config = TrainConfig(data=folder, image_size=size)
    _, samples = check_dataset(list_dataset(folder, 0.15, 0.15, 0), config.preprocessing)
    splits = load(samples, config.preprocessing, folder)
    batches = training_batches(splits["train"], 2, batch, augmentation, seed=0).as_numpy_iterator()
    steps = steps_per_epoch(len(splits["train"]), batch)
    return lambda: (next(batches)[0] for _ in range(steps))


def generator(folder: Path, size: int, batch: int) -> keras.utils.PyDataset:
    """Returns the tutorial's generator, with the same augmentation."""
    augmenting = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=TUTORIAL.rotation,
        width_shift_range=TUTORIAL.width_shift,
        height_shift_range=TUTORIAL.height_shift,
        shear_range=TUTORIAL.shear,
        zoom_range=TUTORIAL.zoom,
        horizontal_flip=TUTORIAL.horizontal_flip,
        fill_mode="nearest",
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it found
        return augmenting.flow_from_directory(folder / "train", target_size=(size, size), batch_size=batch)


def tutorial(folder: Path, size: int, batch: int) -> Epoch:
    """Runs epochs as the tutorial does, in one thread."""
    batches = generator(folder, size, batch)
    return lambda: (batches[i][0] for i in range(len(batches)))


def tutorial_threads(folder: Path, size: int, batch: int) -> Epoch:
    """Runs epochs with a worker thread a core, the generator's best setting."""
    batches = generator(folder, size, batch)

    def epoch() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(CORES) as pool:
            yield from pool.map(lambda i: batches[i][0], range(len(batches)))

    return epoch


CONTESTANTS = {
    "ours": ours,
    "ImageDataGenerator": tutorial,
    f"ImageDataGenerator, {CORES} threads": tutorial_threads,
}


PRESETS = {
    name: functools.partial(ours, augmentation=AUGMENTATIONS[name])
    for name in ("tutorial", "none", "characters", "few", "modern")
}


def measure(make: Callable[[Path, int, int], Epoch], folder: Path, options: argparse.Namespace) -> list[float]:
    """Returns images a second of the first epoch, with the making of its object, and of the later epochs."""
    rates, start = [], time.perf_counter()
    epoch = make(folder, options.size, options.batch)
    for _ in range(1 + options.epochs):
        seen = 0
        for images in epoch():
            assert images.shape[1:] == (options.size, options.size, 3), images.shape
            assert images.std() > 0
            seen += len(images)
        assert seen >= options.images, f"an epoch should show {options.images} images, it showed {seen}"
        rates.append(options.images / (time.perf_counter() - start))
        start = time.perf_counter()
    return rates


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="steady epochs in a round")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--presets", action="store_true", help="compare the augmentation's presets")
    options = parser.parse_args()
    contestants = PRESETS if options.presets else CONTESTANTS
    first: dict[str, list[float]] = {name: [] for name in contestants}
    steady: dict[str, list[float]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), options.images)
        for round_ in range(1 + options.rounds):
            for name, make in contestants.items():
                rates = measure(make, Path(folder), options)
                if round_:  # the round before warms libraries and the page cache
                    first[name].append(rates[0])
                    steady[name] += rates[1:]
    sys.stdout.write(f"{machine()}\n\n{table(first, steady)}\n")


def table(first: dict[str, list[float]], steady: dict[str, list[float]]) -> str:
    """Returns a table: minimum, median and maximum in images a second, and the first row's median over each."""
    one = next(iter(first))
    lines = [f"| | first epoch: min / median / max | {one} is | later epochs | {one} is |", "|---|---|---|---|---|"]
    for name in first:
        cells = [name]
        for rates in (first, steady):
            median = statistics.median(rates[name])
            cells.append(f"{min(rates[name]):.0f} / {median:.0f} / {max(rates[name]):.0f}")
            cells.append(f"{statistics.median(rates[one]) / median:.1f}x")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
