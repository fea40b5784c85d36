"""What a training run needs to go on after it was stopped, and the best weights it has seen."""

import json
import time
from pathlib import Path
from typing import Any

from training.disk.durable import replace_text
from training.errors import TrainingError
from training.runtime import keras

STATE_FILE = "state.json"
# what these callbacks carry from epoch to epoch; their own on_train_begin forgets it
CALLBACK_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


class CheckpointError(TrainingError):
    """A checkpoint folder that can not be continued from."""


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer, history and the state of `others`; keeps the last and the best.

    After each epoch, and every `every` steps within one where that is not 0. The best epoch has the highest validation
    accuracy, and among equals the lowest validation loss. Weights are written beside the old ones and `state.json`
    names the valid ones by one rename, so a crash at any moment costs what came after the last checkpoint and no more.
    Must come after `others` in the list of callbacks.
    """

    def __init__(self, folder: Path, others: list[keras.callbacks.Callback], every: int = 0) -> None:
        super().__init__()
        self.folder = folder
        self.others = [other for other in others if type(other) in CALLBACK_STATE]
        self.every = every
        self.state: dict[str, Any] = {
            "epochs_done": 0,
            "steps_done": 0,  # of the epoch after those
            "weights": None,
            "history": [],
            "best": None,
            "callbacks": {},
            "metrics": [],  # what the epoch's running loss and accuracy have summed up
            "seconds": 0.0,  # spent in the epoch
            "stopped": False,  # early, by a rule
        }

    def load_state(self) -> bool:
        """Reads the folder's state; False where nothing was saved yet."""
        if not (self.folder / STATE_FILE).exists():
            return False
        self.state = json.loads((self.folder / STATE_FILE).read_text())
        return True

    def restore(self, model: keras.Model) -> bool:
        """Loads the last weights and optimizer into the compiled `model`; False where nothing was saved yet.

        Raises CheckpointError where the weights are missing or another network's.
        """
        if not self.load_state():
            return False
        model.optimizer.build(model.trainable_variables)
        weights = self.folder / self.state["weights"]
        try:
            model.load_weights(weights)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{weights} does not fit this run's network: {error}") from error
        return True

    @property
    def epochs_done(self) -> int:
        done: int = self.state["epochs_done"]
        return done

    @property
    def steps_done(self) -> int:
        """Of the epoch that was cut off; 0 between two epochs."""
        done: int = self.state["steps_done"]
        return done

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry an epoch, earlier attempts' included: loss, accuracy, val_loss, val_accuracy, learning_rate,
        epoch (from 1), seconds."""
        return self.state["history"]

    @property
    def best_weights(self) -> Path:
        """The best epoch's weights. Raises CheckpointError before the first epoch's end."""
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

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        step = self.first_step + batch + 1
        if not self.every or step % self.every:
            return
        name = f"epoch-{self.epochs_done + 1:04d}-step-{step:07d}.weights.h5"
        self._write(
            self.folder / name,
            steps_done=step,
            metrics=[variable.numpy().tolist() for variable in self._metrics()],
            seconds=time.monotonic() - self.started,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        logs |= {
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        best, rank = self.state["best"], [logs["val_accuracy"], -logs["val_loss"]]
        self._write(
            self._of_epoch(epoch + 1),
            epochs_done=epoch + 1,
            steps_done=0,
            history=[*self.history, logs],
            best={"epoch": epoch + 1, "rank": rank} if best is None or rank > best["rank"] else best,
            callbacks={
                type(other).__name__: {name: getattr(other, name) for name in CALLBACK_STATE[type(other)]}
                for other in self.others
            },
            metrics=[],
            seconds=0.0,
            stopped=bool(self.model.stop_training),
        )

    def _write(self, weights: Path, **state: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.model.save_weights(weights, overwrite=True)
        except Exception:  # h5py's own, for one cause: a full disk
            weights.unlink(missing_ok=True)  # leave the room to others
            raise
        self.state |= {**state, "weights": weights.name}
        self._save()
        kept = {weights} | ({self.best_weights} if self.state["best"] else set())
        for old in set(self.folder.glob("*.weights.h5")) - kept:
            old.unlink()

    def _save(self) -> None:
        replace_text(self.folder / STATE_FILE, json.dumps(self.state, indent=1))

    def _restore_metrics(self) -> None:
        if len(self._metrics()) != len(self.state["metrics"]):  # Keras makes their variables in its first step
            nothing = keras.ops.zeros((1, self.model.output_shape[-1]))
            self.model.compute_metrics(None, nothing, nothing)
        for variable, value in zip(self._metrics(), self.state["metrics"], strict=True):
            variable.assign(value)

    def _metrics(self) -> list[Any]:
        """The variables of the running metrics, in an order that does not change."""
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _of_epoch(self, number: int) -> Path:
        return self.folder / f"epoch-{number:04d}.weights.h5"
