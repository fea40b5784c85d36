"""What a training run needs to go on after it was stopped, and the best weights it has seen."""

import json
import time
from pathlib import Path
from typing import Any

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
    """Saves weights, optimizer, history and the state of `others` after each epoch; keeps the last and the best.

    The best epoch has the highest validation accuracy, and among equals the lowest validation loss. Weights are
    written beside the old ones and `state.json` names the valid ones by one rename, so a crash at any moment costs
    one epoch at most. Must come after `others` in the list of callbacks.
    """

    def __init__(self, folder: Path, others: list[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.folder = folder
        self.others = [other for other in others if type(other) in CALLBACK_STATE]
        self.state: dict[str, Any] = {"epochs_done": 0, "history": [], "best": None, "callbacks": {}, "finished": False}

    def load_state(self) -> bool:
        """Reads the folder's state; False where no epoch was finished."""
        if not (self.folder / STATE_FILE).exists():
            return False
        self.state = json.loads((self.folder / STATE_FILE).read_text())
        return True

    def restore(self, model: keras.Model) -> int:
        """Loads the last epoch's weights and optimizer into the compiled `model`; returns how many epochs are done.

        0 where no epoch was done. Raises CheckpointError where the weights are missing or another network's.
        """
        if not self.load_state():
            return 0  # stopped within its first epoch
        model.optimizer.build(model.trainable_variables)
        weights = self._weights(self.state["epochs_done"])
        try:
            model.load_weights(weights)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{weights} does not fit this run's network: {error}") from error
        return self.state["epochs_done"]

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry an epoch, earlier attempts' included: loss, accuracy, val_loss, val_accuracy, learning_rate,
        epoch (from 1), seconds."""
        return self.state["history"]

    @property
    def best_weights(self) -> Path:
        """The best epoch's weights."""
        return self._weights(self.state["best"]["epoch"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.started = time.monotonic()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        for other in self.others:
            vars(other).update(self.state["callbacks"].get(type(other).__name__, {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        logs |= {
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        best, rank = self.state["best"], [logs["val_accuracy"], -logs["val_loss"]]
        self.state |= {
            "epochs_done": epoch + 1,
            "history": [*self.history, logs],
            "best": {"epoch": epoch + 1, "rank": rank} if best is None or rank > best["rank"] else best,
            "callbacks": {
                type(other).__name__: {name: getattr(other, name) for name in CALLBACK_STATE[type(other)]}
                for other in self.others
            },
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model.save_weights(self._weights(epoch + 1), overwrite=True)
        self._save()
        kept = {self._weights(self.state["epochs_done"]), self.best_weights}
        for weights in set(self.folder.glob("*.weights.h5")) - kept:
            weights.unlink()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.state["finished"] = True
        self._save()

    def _save(self) -> None:
        temporary = self.folder / f".{STATE_FILE}.tmp"
        temporary.write_text(json.dumps(self.state, indent=1))
        temporary.replace(self.folder / STATE_FILE)

    def _weights(self, epochs_done: int) -> Path:
        return self.folder / f"epoch-{epochs_done:04d}.weights.h5"
