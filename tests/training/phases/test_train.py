"""Fitting: what it leaves, and that one that was cut off anywhere ends as an unbroken one does."""

import io
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from tests.training.conftest import Trained
from tests.training.phases.runs import checked
from training.config import TrainConfig
from training.datasets.loading import Split
from training.network.checkpoint import Checkpoint
from training.network.divergence import Diverged
from training.network.histograms import Histograms
from training.network.runtime import keras, tf
from training.phases.export import filled_network
from training.phases.order import run_phase
from training.phases.train import class_weights, epochs_of, optimizer, stopping_rules
from training.runs.plan import Plan, write_plan
from training.runs.records import TrainingRecord
from training.runs.run import Run


def saved(run: Run) -> Checkpoint:
    checkpoint = Checkpoint(run.checkpoints, [])
    assert checkpoint.load_state()
    return checkpoint


def test_tensorboard_has_histograms(trained: Trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(trained.run.tensorboard / "train"))
    accumulator.Reload()
    assert any("stage1_block1_conv2/kernel" in tag for tag in accumulator.Tags()["tensors"])


def test_histograms_follow_the_clock(tmp_path: Path) -> None:
    """They are written after the first epoch; then only when they cost at most a fiftieth of the time."""
    histograms = Histograms(tmp_path)
    histograms.set_model(keras.Sequential([keras.Input((1000,)), keras.layers.Dense(100, name="dense")]))
    histograms.on_train_begin()
    due = []
    for epoch, until in enumerate([0.0, math.inf, 0.0]):
        histograms.due = until
        histograms.on_epoch_end(epoch)
        due.append(histograms.due)
    histograms.on_train_end()
    assert due[1] == math.inf
    assert due[2] > time.monotonic()
    found = [
        (value.tag, event.step)
        for file in (tmp_path / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert sorted(step for tag, step in found if tag.endswith("dense/kernel")) == [0, 2]


@pytest.mark.parametrize(
    ("steps", "epochs", "patience", "plateau"), [(1, 480, 128, 48), (4, 120, 32, 12), (50, 30, 8, 3)]
)
def test_short_epochs_count_by_their_steps(
    trained: Trained, steps: int, epochs: int, patience: int, plateau: int
) -> None:
    config = trained.config.model_copy(update={"epochs": None})
    assert epochs_of(config, steps) == epochs
    assert epochs_of(trained.config, steps) == 3  # those that were asked for
    assert [rule.patience for rule in stopping_rules(config, steps)] == [patience, plateau]


def test_a_training_that_diverges_says_so_and_keeps_its_good_epoch(trained: Trained, tmp_path: Path) -> None:
    """Its first epoch warms up from a rate of 0; the second one goes to 1e8."""
    rates = {"optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 2, "learning_rate": 1e8, "epochs": 6}
    run = checked(trained, tmp_path / "run", TrainConfig.model_validate(trained.config.model_dump() | rates))
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(
        Diverged, match=r"diverged in epoch \d: its (val )?loss is (nan|-?inf); lower the learning rate, it is 1e\+08"
    ):
        run_phase(run, "training", trained.repository, console)
    assert not run.done("training")
    assert "NaN" not in run.progress.read_text()
    history = saved(run).history if (run.checkpoints / "state.json").exists() else []
    assert all(math.isfinite(figure) for epoch in history for figure in epoch.values())


def test_the_person_watching_sees_every_epoch_and_the_best_one(trained: Trained) -> None:
    lines = trained.printed.splitlines()
    epochs = [
        line for line in lines if re.match(r"epoch \d/3  loss \S+  accuracy \S+  val loss \S+  val accuracy", line)
    ]
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    best = trained.run.record("training", TrainingRecord).best_epoch
    (last,) = [line for line in lines if line.startswith(f"best epoch {best} of 3: val accuracy 0.")]
    assert "; trained for " in last


def test_the_best_epoch_is_kept_not_the_last(trained: Trained) -> None:
    checkpoint, record = saved(trained.run), trained.run.record("training", TrainingRecord)
    best = max(checkpoint.history, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))
    assert checkpoint.state["best"]["epoch"] == record.best_epoch == best["epoch"]
    assert trained.manifest.metrics["val"].accuracy == pytest.approx(best["val_accuracy"], abs=1e-6)


def test_a_time_budget_ends_the_training_with_its_best_epoch(trained: Trained, tmp_path: Path) -> None:
    """A plan of 500 epochs, as a machine that has become busy since: it ends after an epoch, and keeps one."""
    config = trained.config.model_copy(update={"time_budget": 1.0, "early_stopping_patience": 0})
    run = checked(trained, tmp_path / "run", config)
    write_plan(run, Plan(method="scratch", epochs=500))
    console = Console(file=io.StringIO(), width=120)
    run_phase(run, "training", trained.repository, console)
    assert isinstance(console.file, io.StringIO)
    assert "the time budget is spent" in console.file.getvalue()
    record = run.record("training", TrainingRecord)
    assert 1 <= record.epochs < 100
    assert saved(run).state["stopped"]
    assert saved(run).best_weights.exists()


@pytest.mark.parametrize(
    ("every", "epochs_done", "steps_done"),
    [(0, 1, 0), (7, 1, 14)],  # of 20 steps an epoch
)
def test_a_killed_training_ends_like_an_unbroken_one(
    trained: Trained, tmp_path: Path, every: int, epochs_done: int, steps_done: int
) -> None:
    """Killed in its second epoch: at the end of the first, and after the 14th step of the second."""
    config = trained.config.model_copy(update={"checkpoint_every": every})
    run = checked(trained, tmp_path / "run", config)
    train_until(run, trained, steps_done or 7, epochs_done)
    broken = saved(run)
    assert (broken.epochs_done, broken.steps_done) == (epochs_done, steps_done)

    run_phase(run, "training", trained.repository, Console(quiet=True))

    history, weights = ends(run, config)
    expected_history, expected_weights = ends(trained.run, trained.config)
    assert history == expected_history
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def train_until(run: Run, trained: Trained, step: int, epochs_done: int) -> None:
    """Runs the training phase as a worker does and kills it after a step of the epoch that follows `epochs_done`."""
    command = [sys.executable, "-c", KILLED, str(run.folder), str(trained.repository.folder.parent)]
    command += [str(epochs_done), str(step)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


KILLED = """
import os, signal, sys
from pathlib import Path
from training.network.runtime import keras, tf
from training.phases import train
from training.phases.order import run_phase
from training.contract.repository import ModelRepository
from training.runs.run import Run
from rich.console import Console

folder, models, epoch, step = sys.argv[1:]

class Kill(train.ProgressCallback):
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) == (int(epoch), int(step)):
            os.kill(os.getpid(), signal.SIGKILL)

train.ProgressCallback = Kill
run_phase(Run(Path(folder)), "training", ModelRepository(Path(models), "small"), Console(quiet=True))
"""


def ends(run: Run, config: TrainConfig) -> tuple[list[dict[str, float]], list[NDArray[np.float32]]]:
    """Everything that a training comes to, but its times: history; last and best weights."""
    checkpoint = saved(run)
    history = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in checkpoint.history]
    files = [run.checkpoints / checkpoint.state["weights"], checkpoint.best_weights]
    return history, [flat_weights(file, config) for file in files]


def flat_weights(file: Path, config: TrainConfig) -> NDArray[np.float32]:
    network = filled_network(lambda network: network.load_weights(file), config, 10, exported=False)
    return np.concatenate([variable.numpy().ravel() for variable in network.weights])


def test_class_weights_give_each_class_the_same_sum() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    weights = class_weights(Split(np.zeros((4, 1, 1, 3), np.uint8), labels, [None] * 4), 2)  # type: ignore[list-item]
    assert weights.tolist() == pytest.approx([2 / 3, 2.0])
    assert weights[labels].sum() == pytest.approx(4)


@pytest.mark.parametrize(
    ("change", "kind", "first", "last"),
    [
        ({}, "Adam", 5e-3, 5e-3),
        ({"optimizer": "adamw", "weight_decay": 0.05}, "AdamW", 5e-3, 5e-3),
        ({"optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 1}, "SGD", 0.0, 0.0),
        ({"schedule": "cosine"}, "Adam", 5e-3, 0.0),
    ],
)
def test_optimizers_and_schedules(
    trained: Trained, change: dict[str, object], kind: str, first: float, last: float
) -> None:
    chosen = optimizer(trained.config.model_copy(update=change), steps=10)
    assert type(chosen).__name__ == kind
    rates = []
    for step in (0, 10, 30):
        chosen.iterations.assign(step)
        rates.append(float(keras.ops.convert_to_numpy(chosen.learning_rate)))
    assert rates == pytest.approx([first, rates[1], last], abs=1e-9)
    if "warmup_epochs" in change:
        assert rates[1] == pytest.approx(5e-3)
