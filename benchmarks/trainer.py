"""Our side of `benchmarks.training_step`: the network, optimizer and loss of `training.phases.train`, by `model.fit`.

Talks to the benchmark as `benchmarks/peers/pytorch/trainer.py` does. `--pipeline` feeds it through the input pipeline,
with the tutorial's augmentation of cached uint8 images, in place of one batch that lies ready.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from training.config import TrainConfig
from training.datasets.layout import Sample
from training.datasets.loading import Split
from training.network import resnext, runtime
from training.network.pipeline import training_batches
from training.network.runtime import keras, tf
from training.phases.train import compiled
from training.recipes import AUGMENTATIONS

IMAGES = 512  # in the pipeline's cache


class Clock(keras.callbacks.Callback):
    """A callback that keeps the seconds from the end of the first step to the end of the last, and the last loss."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.start = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if not self.start:
            self.start = time.perf_counter()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.loss = float((logs or {})["loss"])  # waits for a GPU
        self.seconds = time.perf_counter() - self.start


def batches(options: argparse.Namespace) -> tf.data.Dataset:
    """Returns endless batches for `fit`."""
    random = np.random.default_rng(0)
    count = IMAGES if options.pipeline else options.batch
    images = random.integers(0, 256, (count, options.size, options.size, 3), np.uint8)
    labels = random.integers(0, options.classes, count, np.int32)
    if options.pipeline:
        split = Split(images, labels, [Sample(Path(), str(i), label) for i, label in enumerate(labels.tolist())])
        return training_batches(split, options.classes, options.batch, AUGMENTATIONS["tutorial"], seed=0)
    one = (tf.constant(images, tf.float32), tf.one_hot(labels, options.classes))
    return tf.data.Dataset.from_tensors(one).repeat()


def say(line: dict[str, object]) -> None:
    """Writes a line to the benchmark."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Trains each time a line asks for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), required=True)
    parser.add_argument("--pipeline", action="store_true", help="augmented batches")
    options = parser.parse_args()
    runtime.set_up({"float32": "float32", "bfloat16": "mixed_bfloat16"}[options.precision], seed=0)
    config = TrainConfig(
        data=Path(), image_size=options.size, batch_size=options.batch, optimizer=options.optimizer, learning_rate=1e-3
    )
    model, clock = compiled(config, options.classes, steps=1, synchronized=False), Clock()
    data = batches(options)
    say({"version": f"tensorflow {tf.__version__}", "parameters": resnext.parameters(model)["trainable"]})
    for line in sys.stdin:  # one step more than asked for: the clock starts after it
        model.fit(data, steps_per_epoch=int(line) + 1, callbacks=[clock], shuffle=False, verbose=0)
        say({"seconds": clock.seconds, "loss": clock.loss})


if __name__ == "__main__":
    main()
