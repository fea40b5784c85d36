"""The averaged weights: what they are, where they are used, and that a training that was cut off has the same ones."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from sklearn.datasets import load_sample_image

from training.config import TrainConfig
from training.datasets.layout import Sample
from training.datasets.loading import Split
from training.network import optimizers, runtime
from training.network.averaging import AveragedValidation, averaged
from training.network.checkpoint import Checkpoint
from training.network.runtime import keras, tf
from training.phases.train import fit, optimizer
from training.runs.console import ProgressLog
from training.runs.run import Run

EMA = 0.6


@pytest.mark.parametrize("kind", [optimizers.SGD, optimizers.Adam, optimizers.AdamW])
def test_the_average_follows_the_weights_with_a_momentum_that_grows(kind: type[keras.optimizers.Optimizer]) -> None:
    arguments = {"momentum": 0.9} if kind is optimizers.SGD else {}
    chosen = kind(0.1, use_ema=True, ema_momentum=EMA, **arguments)
    variable = keras.Variable(np.ones((3, 2), np.float32))
    chosen.build([variable])
    step = tf.function(chosen.apply)
    expected, random = np.zeros((3, 2)), np.random.default_rng(0)
    for number in range(20):  # from the 15th step on, 15 / 25 is EMA
        step([random.normal(size=(3, 2)).astype(np.float32)])
        momentum = min(EMA, number / (number + 10))
        expected = momentum * expected + (1 - momentum) * variable.numpy()
        if number == 0:
            np.testing.assert_array_equal(chosen._model_variables_moving_average[0], variable)
    np.testing.assert_allclose(chosen._model_variables_moving_average[0], expected, rtol=1e-5)
    assert not np.allclose(expected, variable.numpy(), atol=0.01)
    chosen.finalize_variable_values([variable])
    assert not np.allclose(expected, variable.numpy(), atol=0.01)


def split(count: int) -> Split:
    """Pieces of two photographs, a class each."""
    photos = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    images = np.stack([photos[i % 2][9 * i : 9 * i + 32, 17 * i : 17 * i + 32] for i in range(count)])
    labels = np.arange(count, dtype=np.int32) % 2
    return Split(images, labels, [Sample(Path(f"{i}.jpg"), f"{i}.jpg", i % 2) for i in range(count)])


CONFIG = TrainConfig.model_validate(
    {
        "data": "photos",
        "image_size": 32,
        "batch_size": 8,
        "epochs": 2,
        "augment": "none",
        "augmentation": {"mixup": 0.3, "cutmix": 0.3},
        "class_weight": "balanced",
        "optimizer": "sgd",
        "learning_rate": 0.02,
        "ema": 0.9,
        "tensorboard": False,
    }
)
LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)
SPLITS = {"train": split(32), "val": split(24)}


class Cut(Exception):
    """The end of a training in its midst."""


class CutOff(Checkpoint):
    """A checkpoint after each step, which ends the training after some of them."""

    def __init__(self, folder: Path, last_step: int | None) -> None:
        super().__init__(folder, [], every=1)
        self.last_step = last_step

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        if self.epochs_done * 4 + self.steps_done == self.last_step:
            raise Cut


def layers() -> keras.Model:
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, strides=2), keras.layers.BatchNormalization()]
    parts += [keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((32, 32, 3)), *parts])


def network() -> keras.Model:
    model, chosen = layers(), optimizer(CONFIG, 4)
    chosen.statistics = model.non_trainable_variables
    model.compile(chosen, LOSS, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])
    return model


def trained(folder: Path, last_step: int | None = None) -> tuple[keras.Model, Checkpoint]:
    """Trains from the folder's last checkpoint, in epochs of 4 steps."""
    run, model = Run(folder), network()
    run.folder.mkdir(exist_ok=True)
    checkpoint = CutOff(run.checkpoints, last_step)
    checkpoint.restore(model, lambda _: None)
    fit(CONFIG, run, model, SPLITS, ProgressLog(run.progress, Console(quiet=True)), checkpoint)
    return model, checkpoint


def values(model: keras.Model) -> list[NDArray[np.float32]]:
    return [np.array(variable) for variable in (*model.variables, *model.optimizer.variables)]


def test_a_training_that_was_cut_off_ends_as_an_unbroken_one_with_its_average(tmp_path: Path) -> None:
    runtime.set_up("float32", seed=0, deterministic=True)
    whole, whole_checkpoint = trained(tmp_path / "whole")
    with pytest.raises(Cut):
        trained(tmp_path / "cut", last_step=6)
    again, checkpoint = trained(tmp_path / "cut")
    for one, other in zip(values(whole), values(again), strict=True):
        np.testing.assert_array_equal(one, other)
    figures = [[epoch | {"seconds": 0} for epoch in each.history] for each in (whole_checkpoint, checkpoint)]
    assert figures[0] == figures[1]

    # the file of the best epoch has the average: it gives the accuracy and the loss of that epoch's validation
    fresh = layers()
    fresh.load_weights(checkpoint.best_weights)
    logits = fresh(SPLITS["val"].images.astype(np.float32), training=False).numpy()
    labels, (accuracy, minus_loss) = SPLITS["val"].labels, checkpoint.state["best"]["rank"]
    assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(accuracy)
    assert float(LOSS(np.eye(2)[labels], logits)) == pytest.approx(-minus_loss, rel=1e-5)


def test_weights_and_average_change_places_exactly() -> None:
    model = network()
    model.fit(
        np.ones((8, 32, 32, 3)), np.eye(2)[np.arange(8) % 2], epochs=3, verbose=0, callbacks=[AveragedValidation()]
    )
    before = values(model)
    weights, averages = [[np.array(v) for v in part] for part in parts(model)]
    assert any(not np.array_equal(one, other) for one, other in zip(weights, averages, strict=True))
    with averaged(model):
        swapped = [[np.array(v) for v in part] for part in parts(model)]
    for one, other in zip([*averages, *weights], [*swapped[0], *swapped[1]], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def parts(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    variables, averages = zip(*model.optimizer.averages(), strict=True)
    assert {variable.path for variable in variables} == {variable.path for variable in model.variables}
    return list(variables), list(averages)
