"""Checkpoints carry a training from one attempt to the next; each is whole or absent."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import SMALL
from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.network import resnext
from training.network.checkpoint import Checkpoint, CheckpointError
from training.network.divergence import Diverged
from training.network.runtime import keras


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
    checkpoint.on_train_end()
    return checkpoint


def restored(folder: Path) -> tuple[Checkpoint, float, list[str]]:
    """The checkpoint that a new attempt goes on from, the epoch that its weights are of, and what was told."""
    model, checkpoint, told = network(), Checkpoint(folder, []), []  # type: ignore[var-annotated]
    checkpoint.restore(model, told.append)
    return checkpoint, float(model.get_layer("logits").bias[0]), told


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
    again, epoch, told = restored(tmp_path)
    assert (again.epochs_done, epoch, told) == (2, 2, ["going on after epoch 2"])
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
    again.restore(network(), print)
    fresh.on_train_begin()
    again.on_train_begin()
    assert (fresh.wait, fresh.best) == (5, 0.75)


def test_before_the_first_epoch_there_is_nothing_to_restore(tmp_path: Path) -> None:
    assert not Checkpoint(tmp_path / "none", []).restore(network(), pytest.fail)


@pytest.mark.filterwarnings("ignore:Skipping:UserWarning")  # Keras' own words, before it gives up
def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    epochs(tmp_path, [(0.5, 1.0)])
    with pytest.raises(CheckpointError, match="does not fit this run's network"):
        Checkpoint(tmp_path, []).restore(network(depths=(1, 1)), print)


def test_a_torn_write_leaves_the_epoch_before(tmp_path: Path) -> None:
    """A kill between the weights and state.json leaves weights of an epoch that the state does not name."""
    epochs(tmp_path, [(0.5, 1.0)])
    (tmp_path / "epoch-0002.weights.h5").write_bytes(b"half a fi")
    again, epoch, _ = restored(tmp_path)
    assert (again.epochs_done, epoch) == (1, 1)
    assert json.loads((tmp_path / "state.json").read_text())["epochs_done"] == 1


HISTORY = [(0.5, 1.0), (0.9, 0.4), (0.7, 0.3), (0.6, 0.3)]  # the second is the best


def test_between_two_checkpoints_the_best_epoch_is_in_memory_and_nothing_is_written(tmp_path: Path) -> None:
    checkpoint = epochs(tmp_path, HISTORY[:1])
    checkpoint.due = math.inf
    written = sorted(path.name for path in tmp_path.iterdir())
    for epoch, (accuracy, loss) in enumerate(HISTORY[1:], start=1):
        checkpoint.on_epoch_begin(epoch)
        checkpoint.model.get_layer("logits").bias.assign([epoch + 1.0] * 2)
        checkpoint.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
        assert sorted(path.name for path in tmp_path.iterdir()) == written
    checkpoint.on_train_end()
    assert [path.name for path in sorted(tmp_path.glob("*.h5"))] == [
        "epoch-0002.weights.h5",
        "epoch-0004.weights.h5",
    ]
    np.testing.assert_array_equal(checkpoint.model.get_layer("logits").bias, [4, 4])
    best = network()
    best.load_weights(checkpoint.best_weights)
    np.testing.assert_array_equal(best.get_layer("logits").bias, [2, 2])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """A power cut leaves a file of the right length without its content."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :])


@pytest.mark.parametrize("damage", [cut_short, emptied, zeroed])
def test_a_damaged_checkpoint_is_told_and_the_best_epoch_goes_on(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    epochs(tmp_path, HISTORY)
    damage(tmp_path / "epoch-0004.weights.h5")
    again, epoch, told = restored(tmp_path)
    assert (again.epochs_done, epoch, len(again.history)) == (2, 2, 2)
    assert told == [
        f"{tmp_path / 'epoch-0004.weights.h5'} is damaged and is skipped",
        "going on after epoch 2",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_state_costs_nothing(tmp_path: Path, text: str) -> None:
    epochs(tmp_path, HISTORY)
    (tmp_path / "state.json").write_text(text)
    again, epoch, _ = restored(tmp_path)
    assert (again.epochs_done, epoch, len(again.history)) == (4, 4, 4)


def test_where_all_is_damaged_the_training_starts_anew_and_says_so(tmp_path: Path) -> None:
    epochs(tmp_path, HISTORY)
    for path in tmp_path.iterdir():
        cut_short(path) if path.suffix == ".h5" else emptied(path)
    again, epoch, told = restored(tmp_path)
    assert (again.epochs_done, epoch) == (0, 0)
    assert told == [f"the checkpoints in {tmp_path} are damaged: the training starts again from the beginning"]


def test_weights_alone_damaged_leave_the_network_as_it_was(tmp_path: Path) -> None:
    epochs(tmp_path, HISTORY)
    for path in tmp_path.glob("*.h5"):
        cut_short(path)
    again, epoch, told = restored(tmp_path)
    assert (again.epochs_done, epoch) == (0, 0)
    assert told[-1] == "no checkpoint is left: the training starts again from the beginning"


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"loss": 1.0, "val_loss": math.inf}])
def test_a_loss_that_is_not_finite_ends_the_training_and_the_good_epoch_stays(
    tmp_path: Path, logs: dict[str, float]
) -> None:
    checkpoint = epochs(tmp_path, HISTORY[:1])
    checkpoint.due = math.inf
    checkpoint.on_epoch_begin(1)
    checkpoint.model.get_layer("logits").bias.assign([2.0, 2.0])
    checkpoint.on_epoch_end(1, {"val_accuracy": 0.9, "val_loss": 0.4})
    checkpoint.on_epoch_begin(2)
    checkpoint.model.get_layer("logits").bias.assign([math.nan] * 2)
    with pytest.raises(Diverged, match=r"diverged in epoch 3: its (val )?loss is (nan|inf)"):
        checkpoint.on_epoch_end(2, {"val_accuracy": 0.95} | logs)
    checkpoint.keep_best()
    again, epoch, _ = restored(tmp_path)
    assert (again.epochs_done, epoch, again.state["best"]["epoch"]) == (2, 2, 2)
