"""Few images: what each method makes of 20 images a class, by the product's own commands.

`resnext train` makes a backbone of Fashion-MNIST's first five classes, and then, for each draw, a classifier of the
other five: from scratch, a head on that backbone, and a fine-tuning of it. Each draw has its own images to train and to
validate on; all are tested on the same 1,000.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from training.contract.intervals import Proportion
from training.contract.repository import ModelRepository
from training.datasets.public import FASHION_CLASSES, make_fashion_mnist
from training.runs.records import TrainingRecord
from training.runs.run import Run

BACKBONE_CLASSES, CLASSES = FASHION_CLASSES[:5], FASHION_CLASSES[5:]
POOL = {"train": 12_000, "val": 1_000, "test": 4_000}  # images of Fashion-MNIST to draw from
BACKBONE_IMAGES, VAL_IMAGES, TEST_IMAGES = 600, 10, 200  # a class
SGD = ["--optimizer=sgd", "--learning-rate=0.1", "--schedule=cosine", "--early-stopping-patience=0", "--augment=none"]
ALWAYS = ["--gate.policy=always", "--no-tensorboard"]
METHODS: dict[str, list[str]] = {
    "scratch": ["--method=scratch", "--init=random", "--image-size=32"],
    "head": ["--method=head", "--init=backbone"],
    "finetune": ["--method=finetune", "--init=backbone"],
}


class Trained(NamedTuple):
    """One training: right answers of the test images, and CPU seconds: of the command, and of its training phase."""

    test: Proportion
    cpu_s: float
    training_s: float


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder with Fashion-MNIST's four idx.gz files")
    parser.add_argument("--folder", type=Path, help="keep all files here, and go on from what is there")
    parser.add_argument("--images", type=int, default=20, help="a class, to train on")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--set", action="append", default=[], metavar="FLAG", help="a flag for all but the backbone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        pool = folder / "pool"
        if not pool.exists():
            make_fashion_mnist(pool, options.source, POOL)
        if not (folder / "models" / "backbone").exists():
            data = draw(pool, folder / "backbone", BACKBONE_CLASSES, BACKBONE_IMAGES, 0)
            train(folder, data, "backbone", ["--method=scratch", "--image-size=32", "--epochs=10", *SGD])
        rows: dict[str, list[Trained]] = {method: [] for method in options.methods}
        for number in range(options.draws):
            data = draw(pool, folder / f"draw-{number}", CLASSES, options.images, number)
            for method in options.methods:
                flags = [*METHODS[method], f"--seed={number}", *options.set]
                rows[method].append(train(folder, data, f"{method}-{number}", flags))
                sys.stderr.write(f"draw {number}, {method}: {rows[method][-1]}\n")
    sys.stdout.write(table(rows, options.images))
    sys.stdout.write(f"\n{machine()}\n")


def draw(pool: Path, folder: Path, classes: tuple[str, ...], images: int, seed: int) -> Path:
    """Links `images` training images of each class, and others to validate and to test on, into `folder`."""
    if folder.exists():
        return folder
    random = np.random.default_rng(seed)
    for label in classes:
        for split, count in (("train", images), ("val", VAL_IMAGES), ("test", TEST_IMAGES)):
            files = sorted((pool / split / label).iterdir())
            rows = range(count) if split == "test" else random.permutation(len(files))[:count]
            (folder / split / label).mkdir(parents=True)
            for row in rows:
                shutil.copy(files[row], folder / split / label)
    return folder


def train(folder: Path, data: Path, name: str, flags: list[str]) -> Trained:
    """Runs `resnext train` and returns what came out."""
    run = Run(folder / "runs" / name)
    if not run.done("publishing"):
        shutil.rmtree(run.folder, ignore_errors=True)
        places = ["--models", str(folder / "models"), "--run", str(run.folder), "--name", name]
        command = [sys.executable, "-m", "training", "train", str(data), *places, *ALWAYS, *flags]
        environment = {**os.environ, "RESNEXT_CACHE": str(folder / "cache"), "RESNEXT_WEIGHTS": str(folder / "weights")}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        log = run.folder.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (run.folder / "cpu.json").write_text(json.dumps(spent))
    repository = ModelRepository(folder / "models", name)
    metrics = repository.manifest(repository.versions()[-1]).metrics["test"]
    record = run.record("training", TrainingRecord)
    cpu: Any = json.loads((run.folder / "cpu.json").read_text())  # Any: JSON
    return Trained(Proportion.of(metrics.accuracy, metrics.images), float(cpu), record.seconds)


def table(rows: dict[str, list[Trained]], images: int) -> str:
    """Returns a Markdown table."""
    lines = [
        f"| {images} images a class | accuracy of each draw | mean | training, seconds | whole command, CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for method, trained in rows.items():
        shares = [one.test.share for one in trained]
        lines.append(
            f"| {method} | {' '.join(f'{share:.3f}' for share in shares)} | {statistics.mean(shares):.3f} | "
            f"{statistics.mean(one.training_s for one in trained):.1f} | "
            f"{statistics.mean(one.cpu_s for one in trained):.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
