"""Compares the recipes: the same images, the same network and the same number of epochs for each, over several seeds.

Two parts. `scratch` trains from random weights. `few` trains a network on Fashion-MNIST's first five classes, and goes
on from its weights, but its last layer's, with few images of the other five. Each seed draws its own images; the epoch
that is best on val is measured on test. `--data DIR` takes a folder of images for `scratch`, in place of Fashion-MNIST.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.machine import machine
from training.config import TrainConfig
from training.contract.intervals import Proportion
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.loading import Split, load
from training.datasets.public import make_fashion_mnist
from training.network import resnext, runtime
from training.network.checkpoint import Checkpoint
from training.network.pipeline import steps_per_epoch
from training.network.published_weights import OUR_HEAD
from training.network.runtime import keras
from training.phases.export import filled_network
from training.phases.train import compiled, fit, stopping_rules
from training.recipes import RECIPES
from training.runs.console import ProgressLog
from training.runs.run import Run

Splits = dict[str, Split]

POOL = {"train": 12_000, "val": 100, "test": 2_000}  # images of Fashion-MNIST to draw from
BASE_CLASSES, BASE_IMAGES = range(5), 600  # what the part `few` starts from, and its images a class
BASE = {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "cosine", "epochs": 10, "early_stopping_patience": 0}
SMALL = {"depths": [1, 1, 1, 1], "cardinality": 8, "base_width": 4, "stem_width": 32}


class Trial(NamedTuple):
    """One training: how many test images it names right, its seconds, and the file of its best weights."""

    test: Proportion
    seconds: float
    weights: Path


def main() -> None:
    """Prints a Markdown table for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images")
    parser.add_argument("--source", type=Path, help="folder with Fashion-MNIST's four idx.gz files")
    parser.add_argument("--parts", nargs="+", choices=("scratch", "few"), default=["scratch", "few"])
    parser.add_argument("--recipes", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs=2, default=[200, 20], help="a class: in scratch, and in few")
    parser.add_argument("--epochs", type=int, help="by default as many as the product takes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="a setting of all recipes")
    parser.add_argument("--quick", action="store_true", help="a small network, 2 epochs, one seed: does it run?")
    options = parser.parse_args()
    settings = {"image_size": options.size, "epochs": options.epochs, "tensorboard": False}
    settings |= {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)}
    if options.quick:
        options.seeds, options.images = 1, [20, 5]
        settings |= {"epochs": 2, "architecture": SMALL}
    with tempfile.TemporaryDirectory() as temporary:
        for part in options.parts:
            sys.stdout.write(f"{compare(part, options, settings, Path(temporary))}\n\n")
            sys.stdout.flush()
    sys.stdout.write(f"{machine()}\n")


def compare(part: str, options: argparse.Namespace, settings: dict[str, Any], folder: Path) -> str:
    """Runs one part, recipe after recipe for each seed, and returns its table."""
    trials: dict[str, list[Trial]] = {recipe: [] for recipe in options.recipes}
    pool = {} if options.data else fashion(options.source, settings, folder)
    start = None
    if part == "few":
        base = drawn(pool, BASE_CLASSES, BASE_IMAGES, 0)
        start = trial(BASE | {"data": "base"} | settings | {"epochs": settings["epochs"] or 10}, base, folder / "base")
        sys.stderr.write(f"base: {start.test}\n")
    for seed in range(options.seeds):
        splits = of_folder(options.data, settings, seed) if options.data else {}
        for recipe in options.recipes:
            if not options.data:
                classes = range(5, 10) if part == "few" else range(10)
                splits = drawn(pool, classes, options.images[part == "few"], seed)
            config = settings | {"data": part, "recipe": recipe, "seed": seed}
            done = trial(config, splits, folder / f"{part}-{recipe}-{seed}", start and start.weights)
            trials[recipe].append(done)
            sys.stderr.write(f"{part} {recipe} seed {seed}: {done.test}, {done.seconds:.0f} s\n")
    return table(part, trials)


def trial(settings: dict[str, Any], splits: Splits, folder: Path, start: Path | None = None) -> Trial:
    """Trains as the training phase does, from random weights or from `start` without its last layer."""
    begun = time.monotonic()
    config, classes = TrainConfig.model_validate(settings), int(splits["train"].labels.max()) + 1
    keras.backend.clear_session()
    runtime.set_up(config.precision, config.seed)
    steps = steps_per_epoch(len(splits["train"]), config.batch_size)
    model, run = compiled(config, classes, steps, synchronized=False), Run(folder)
    run.folder.mkdir()
    checkpoint = Checkpoint(run.checkpoints, stopping_rules(config, steps))
    checkpoint.restore(model, print)
    if start:
        source = resnext.build(config.architecture, config.preprocessing, len(BASE_CLASSES))
        source.load_weights(start)
        for layer in model.layers:
            if layer.name != OUR_HEAD:
                layer.set_weights(source.get_layer(layer.name).get_weights())
    fit(config, run, model, splits, ProgressLog(run.progress, Console(quiet=True)), checkpoint)
    seconds = time.monotonic() - begun
    best = checkpoint.best_weights
    network = filled_network(lambda network: network.load_weights(best), config, classes, exported=False)
    logits = network.predict(splits["test"].images.astype(np.float32), batch_size=64, verbose=0)
    right = (logits.argmax(axis=1) == splits["test"].labels).mean()
    return Trial(Proportion.of(float(right), len(splits["test"])), seconds, best)


def fashion(source: Path | None, settings: dict[str, Any], folder: Path) -> Splits:
    """Decodes the beginning of Fashion-MNIST's splits as a training does."""
    if not (folder / "fashion").exists():
        make_fashion_mnist(folder / "fashion", source, POOL)
    return of_folder(folder / "fashion", settings, 0)


def of_folder(data: Path, settings: dict[str, Any], seed: int) -> Splits:
    """Checks, splits and decodes a folder as a training does."""
    config = TrainConfig.model_validate({"data": data} | settings)
    dataset = list_dataset(data, config.val_fraction, config.test_fraction, seed)
    _, checked = check_dataset(dataset, config.preprocessing)
    return load(checked, config.preprocessing, data)


def drawn(pool: Splits, classes: range, images: int, seed: int) -> Splits:
    """Draws training images a class, a quarter as many for val, and takes all test images of these classes."""
    random, labels = np.random.default_rng(seed), pool["train"].labels
    rows = np.stack([random.permutation(np.flatnonzero(labels == label))[: images * 5 // 4] for label in classes])
    held_out = np.flatnonzero(np.isin(pool["test"].labels, classes))
    return {
        "train": taken(pool["train"], rows[:, :images].ravel(), classes),
        "val": taken(pool["train"], rows[:, images:].ravel(), classes),
        "test": taken(pool["test"], held_out, classes),
    }


def taken(split: Split, rows: np.ndarray, classes: range) -> Split:
    """Returns these rows, with labels from 0."""
    labels = (split.labels[rows] - classes[0]).astype(np.int32)
    return Split(split.images[rows], labels, [split.samples[row] for row in rows])


def table(part: str, trials: dict[str, list[Trial]]) -> str:
    """Returns a row for each recipe: mean accuracy on test, each seed's, and the median of the seconds."""
    lines = [f"| {part} | mean | each seed | seconds |", "|---|---|---|---|"]
    for recipe, done in trials.items():
        shares = [trial.test.share for trial in done]
        each = " ".join(f"{share:.3f}" for share in shares)
        seconds = statistics.median(trial.seconds for trial in done)
        lines.append(f"| {recipe} | {statistics.mean(shares):.3f} | {each} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
