"""What is kept between attempts, and that a checkpoint is whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import SMALL
from training import resnext
from training.checkpoint import Checkpoint, CheckpointError
from training.config import Architecture
from training.contract import Preprocessing
from training.runtime import keras


def network(depths: tuple[int, ...] = (1,)) -> keras.Model:
    architecture = Architecture.model_validate(SMALL | {"depths": depths})
    model = resnext.build(architecture, Preprocessing(height=32, width=32), classes=2)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    model.optimizer.build(model.trainable_variables)  # as its first step does
    return model


def epochs(folder: Path, results: list[tuple[float, float]]) -> Checkpoint:
    """A checkpoint after epochs of the given val accuracy and val loss; the classifier's bias is the epoch's number."""
    checkpoint = Checkpoint(folder, [])
    checkpoint.set_model(network())
    for epoch, (accuracy, loss) in enumerate(results):
        checkpoint.on_epoch_begin(epoch)
        checkpoint.model.get_layer("logits").bias.assign([epoch + 1.0] * 2)
        checkpoint.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
    return checkpoint


@pytest.mark.parametrize(
    ("results", "best", "kept"),
    [
        ([(0.5, 1.0), (0.9, 0.4), (0.7, 0.3)], 2, {2, 3}),
        ([(0.5, 1.0), (0.9, 0.4), (0.9, 0.3)], 3, {3}),  # as accurate, and surer
        ([(0.9, 0.3), (0.9, 0.4), (0.8, 0.5)], 1, {1, 3}),
    ],
)
def test_the_last_and_the_best_are_kept(
    tmp_path: Path, results: list[tuple[float, float]], best: int, kept: set[int]
) -> None:
    checkpoint = epochs(tmp_path, results)
    assert {path.name for path in tmp_path.glob("*.h5")} == {f"epoch-{epoch:04d}.weights.h5" for epoch in kept}
    model = network()
    model.load_weights(checkpoint.best_weights)
    np.testing.assert_array_equal(model.get_layer("logits").bias, [best, best])


def test_restore_brings_back_weights_history_and_the_epoch(tmp_path: Path) -> None:
    epochs(tmp_path, [(0.5, 1.0), (0.4, 0.9)])
    model, again = network(), Checkpoint(tmp_path, [])
    assert again.restore(model)
    assert again.epochs_done == 2
    np.testing.assert_array_equal(model.get_layer("logits").bias, [2, 2])
    assert [entry["val_accuracy"] for entry in again.history] == [0.5, 0.4]


def test_callbacks_go_on_counting(tmp_path: Path) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=8)
    checkpoint = Checkpoint(tmp_path, [stopping])
    checkpoint.set_model(network())
    stopping.on_train_begin()
    stopping.wait, stopping.best = 5, 0.75
    checkpoint.on_epoch_begin(0)
    checkpoint.on_epoch_end(0, {"val_accuracy": 0.5, "val_loss": 1.0})

    fresh = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=8)
    again = Checkpoint(tmp_path, [fresh])
    again.restore(network())
    fresh.on_train_begin()
    again.on_train_begin()
    assert (fresh.wait, fresh.best) == (5, 0.75)


def test_before_the_first_epoch_there_is_nothing_to_restore(tmp_path: Path) -> None:
    assert not Checkpoint(tmp_path / "none", []).restore(network())


@pytest.mark.filterwarnings("ignore:Skipping:UserWarning")  # Keras' own words, before it gives up
def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    epochs(tmp_path, [(0.5, 1.0)])
    with pytest.raises(CheckpointError, match="does not fit this run's network"):
        Checkpoint(tmp_path, []).restore(network(depths=(1, 1)))


def test_a_torn_write_leaves_the_epoch_before(tmp_path: Path) -> None:
    """As a kill between the weights and state.json leaves it: weights of an epoch that the state does not name."""
    epochs(tmp_path, [(0.5, 1.0)])
    (tmp_path / "epoch-0002.weights.h5").write_bytes(b"half a fi")
    model, again = network(), Checkpoint(tmp_path, [])
    assert again.restore(model)
    assert again.epochs_done == 1
    np.testing.assert_array_equal(model.get_layer("logits").bias, [1, 1])
    assert json.loads((tmp_path / "state.json").read_text())["epochs_done"] == 1
