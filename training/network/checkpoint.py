"""Checkpoints: the state from which a stopped training goes on, and the best weights so far."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple  # Any: variables, since Keras ships no types

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.network.averaging import averaged, swap
from training.network.divergence import require_finite
from training.network.pace import next_due
from training.network.runtime import keras
from training.network.time_budget import TimeBudget
from training.system.durable import fsync, write_atomically
from training.system.files import sha256

State = dict[str, Any]  # Any: JSON
Values = list[NDArray[Any]]  # Any: of several types

STATE_FILE = "state.json"
MOST_LOST_S = 600.0  # seconds; an epoch that takes longer gets checkpoints within
# Keras' attributes that these callbacks carry from epoch to epoch; their own on_train_begin resets them
CALLBACK_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    TimeBudget: (),
}


class CheckpointError(TrainingError):
    """A checkpoint folder from which a training cannot go on."""


class Snapshot(NamedTuple):
    """A training at the end of an epoch: its state, and the values of all variables of model and optimizer."""

    state: State
    values: Values


class Checkpoint(keras.callbacks.Callback):
    """A callback that saves weights, optimizer, history and the state of `others`; keeps the last and the best.

    It saves at the end of an epoch, as often as a fiftieth of the time allows; within an epoch every 10 minutes, and
    every `every` steps unless that is 0; and at the end of the training. The best epoch has the highest validation
    accuracy, and among equals the lowest validation loss. Between two checkpoints it is kept in memory. Where the
    optimizer averages the weights, a file has the average in their place, and the weights in the optimizer's.

    Weights are written beside the old ones and flushed to disk, then their state in a file of the same name, then
    `state.json`, each by one rename: a crash or a power cut costs only what came after the last checkpoint.
    The callback must come after `others` in the list. It raises Diverged when a loss is not finite; saved files stay.
    """

    def __init__(self, folder: Path, others: list[keras.callbacks.Callback], every: int = 0) -> None:
        super().__init__()
        self.folder = folder
        self.others = [other for other in others if type(other) in CALLBACK_STATE]
        self.every = every
        self.due = -math.inf  # when the next one may be written, by time.monotonic
        self.saved_at = time.monotonic()
        self.unwritten_best: Snapshot | None = None
        self.state: State = {
            "epochs_done": 0,
            "steps_done": 0,  # in the epoch after these
            "weights": None,
            "sha256": None,  # of the weights' file: HDF5 has no checksum, and zeros load without an error
            "history": [],
            "best": None,
            "callbacks": {},
            "metrics": [],  # sums of the epoch's running loss and accuracy
            "seconds": 0.0,  # spent in the unfinished epoch
            "stopped": False,  # early, by a rule
        }

    def load_state(self) -> bool:
        """Reads the newest whole state; returns False where there is none."""
        if states := self._states():
            self.state = states[0]
        return bool(states)

    def restore(self, model: keras.Model, tell: Callable[[str], None]) -> bool:
        """Loads the newest sound checkpoint into the compiled `model`; returns False where there is none.

        `tell` gets a line for each damaged checkpoint that is skipped. Raises CheckpointError when the weights belong
        to another network.
        """
        model.optimizer.build(model.trainable_variables)
        states = self._states()
        if not states and any(self.folder.glob("*.weights.h5")):
            tell(f"the checkpoints in {self.folder} are damaged: the training starts again from the beginning")
        for state in states:
            weights = self.folder / state["weights"]
            if state.get("sha256") not in (None, sha256(weights)):  # None: written by a release without checksums
                tell(f"{weights} is damaged and is skipped")
                continue
            try:
                model.load_weights(weights)
            except ValueError as error:
                raise CheckpointError(f"{weights} does not fit this run's network: {error}") from error
            swap(model)
            self.state = state
            tell(f"going on after epoch {self.epochs_done}" + (f", step {self.steps_done}" if self.steps_done else ""))
            return True
        if states:
            tell("no checkpoint is left: the training starts again from the beginning")
        return False

    @property
    def epochs_done(self) -> int:
        done: int = self.state["epochs_done"]
        return done

    @property
    def steps_done(self) -> int:
        """Steps done in an interrupted epoch; 0 between two epochs."""
        done: int = self.state["steps_done"]
        return done

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry for each epoch, also of earlier attempts.

        An entry has loss, accuracy, val_loss, val_accuracy, learning_rate, epoch (from 1) and seconds.
        """
        return self.state["history"]

    @property
    def seconds(self) -> float:
        """The time of all epochs so far, over all attempts."""
        return float(sum(epoch["seconds"] for epoch in self.history) + self.state["seconds"])

    @property
    def best_weights(self) -> Path:
        """The file of the best epoch's weights. Raises CheckpointError before the first epoch's end."""
        if not self.state["best"]:
            raise CheckpointError(f"{self.folder} should hold a whole epoch's weights, no epoch was finished")
        return self._of_epoch(self.state["best"]["epoch"])

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        for other in self.others:
            vars(other).update(self.state["callbacks"].get(type(other).__name__, {}))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.first_step = self.steps_done
        self.started = time.monotonic() - self.state["seconds"]
        if self.steps_done:
            self._restore_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        step = self.first_step + batch + 1
        asked = self.every and step % self.every == 0
        if not asked and time.monotonic() - self.saved_at < MOST_LOST_S:
            return
        self._require_finite(logs)
        self.state |= {
            "steps_done": step,
            "metrics": [variable.numpy().tolist() for variable in self._metrics()],
            "seconds": time.monotonic() - self.started,
        }
        self._write(f"epoch-{self.epochs_done + 1:04d}-step-{step:07d}.weights.h5")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._require_finite(logs)
        logs = {name: float(value) for name, value in (logs or {}).items()}
        logs |= {
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        best, rank = self.state["best"], [logs["val_accuracy"], -logs["val_loss"]]
        better = best is None or rank > best["rank"]  # all figures are finite here
        self.state |= {
            "epochs_done": epoch + 1,
            "steps_done": 0,
            "history": [*self.history, logs],
            "best": {"epoch": epoch + 1, "rank": rank} if better else best,
            "callbacks": {
                type(other).__name__: {name: getattr(other, name) for name in CALLBACK_STATE[type(other)]}
                for other in self.others
            },
            "metrics": [],
            "seconds": 0.0,
            "stopped": bool(self.model.stop_training),
        }
        if time.monotonic() >= self.due:
            self._write(self._of_epoch(epoch + 1).name)
        elif better:
            self.unwritten_best = Snapshot(dict(self.state), _values(self.model))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        last = self._of_epoch(self.epochs_done).name
        if self.epochs_done and self.state["weights"] != last:
            self._write(last)

    def keep_best(self) -> None:
        """Makes the best epoch the last checkpoint if only memory has it; for a training that diverged afterwards."""
        if self.unwritten_best:
            self._write_best()
            self._point_to(self.best_weights)

    def _write(self, name: str) -> None:
        """Writes the model's weights under this name, and the best epoch's if only memory has them."""
        begun = time.monotonic()
        if self.unwritten_best and self.best_weights.name != name:
            last = Snapshot(self.state, _values(self.model))
            self._write_best()
            self.state = last.state
            _assign(self.model, last.values)
        self.unwritten_best = None
        self._save(self.folder / name)
        self._point_to(self.folder / name)
        self.saved_at = time.monotonic()
        self.due = next_due(begun)

    def _write_best(self) -> None:
        """Writes the best epoch from memory; the model then has that epoch's values."""
        assert self.unwritten_best
        self.state = self.unwritten_best.state
        _assign(self.model, self.unwritten_best.values)
        self.unwritten_best = None
        self._save(self.best_weights)

    def _save(self, weights: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with averaged(self.model):
                self.model.save_weights(weights, overwrite=True)
            fsync(weights)
        except Exception:  # h5py raises types of its own, for instance when the disk is full
            weights.unlink(missing_ok=True)  # half a file only takes room
            raise
        self.state |= {"weights": weights.name, "sha256": sha256(weights)}
        write_atomically(_state_of(weights), json.dumps(self.state, indent=1))

    def _point_to(self, last: Path) -> None:
        write_atomically(self.folder / STATE_FILE, json.dumps(self.state, indent=1))
        kept = {last} | ({self.best_weights} if self.state["best"] else set())
        for old in set(self.folder.glob("*.weights.h5")) - kept:
            old.unlink()
            _state_of(old).unlink(missing_ok=True)

    def _states(self) -> list[State]:
        """Returns the states that are whole and whose weights exist, the newest first."""
        found = {}
        for path in (self.folder / STATE_FILE, *self.folder.glob("*.state.json")):
            try:
                state = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):
                continue
            if isinstance(state, dict) and state.get("weights") and (self.folder / state["weights"]).exists():
                found[state["weights"]] = state
        return sorted(found.values(), key=lambda state: (state["epochs_done"], state["steps_done"]), reverse=True)

    def _require_finite(self, logs: dict[str, float] | None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        require_finite(figures, self.epochs_done + 1)

    def _restore_metrics(self) -> None:
        if len(self._metrics()) != len(self.state["metrics"]):  # Keras makes the metrics' variables in the first step
            nothing = keras.ops.zeros((1, self.model.output_shape[-1]))
            self.model.compute_metrics(None, nothing, nothing)
        for variable, value in zip(self._metrics(), self.state["metrics"], strict=True):
            variable.assign(value)

    def _metrics(self) -> list[Any]:
        """Returns the variables of the running metrics, always in the same order."""
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _of_epoch(self, number: int) -> Path:
        return self.folder / f"epoch-{number:04d}.weights.h5"


def _state_of(weights: Path) -> Path:
    return weights.with_name(weights.name.replace(".weights.h5", ".state.json"))


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _values(model: keras.Model) -> Values:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in _variables(model)]


def _assign(model: keras.Model, values: Values) -> None:
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)
