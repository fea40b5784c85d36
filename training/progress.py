"""How far a run is: `progress.jsonl` for other processes, a line or a bar for the person watching."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from training.runtime import keras

LINE_EVERY_S = 10.0  # where there is no terminal to draw a bar on
RECORD_EVERY_S = 1.0


class ProgressLog:
    """Appends one JSON object a line to `progress.jsonl`: `event` is phase, step or epoch; `time` is Unix seconds."""

    def __init__(self, path: Path, console: Console) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.console = console

    def write(self, event: str, **fields: Any) -> None:
        """Appends a line; readers see whole lines only, each is written at once."""
        with self.path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n")

    def phase(self, name: str, message: str) -> None:
        """A new phase of the job has begun."""
        self.write("phase", phase=name)
        self.console.print(f"[bold]{name}[/bold] {message}", highlight=False)


class ProgressCallback(keras.callbacks.Callback):
    """Follows `fit`: epoch, step, loss, accuracy, learning rate, images/s and the time left."""

    def __init__(self, log: ProgressLog, epochs: int, initial_epoch: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self.log, self.epochs, self.steps, self.batch_size = log, epochs, steps, batch_size
        self.epoch = self.first_epoch = initial_epoch
        self.clock: float | None = None  # starts after the first step, which traces the graph
        self.recorded = self.printed = 0.0
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=log.console,
            disable=not log.console.is_terminal,
        )

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.bar.start()
        self.task = self.bar.add_task("", total=self.steps, epoch=self.first_epoch + 1, text="tracing the graph")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.epoch = epoch
        self.bar.reset(self.task, total=self.steps, epoch=f"{epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        if self.clock is None:
            self.clock = now
            return
        done = (self.epoch - self.first_epoch) * self.steps + batch + 1
        step_seconds = (now - self.clock) / (done - 1)  # validation and checkpoints included
        eta = step_seconds * ((self.epochs - self.first_epoch) * self.steps - done)
        record = {
            "epoch": self.epoch + 1,
            "epochs": self.epochs,
            "step": batch + 1,
            "steps": self.steps,
            "loss": round(float((logs or {})["loss"]), 4),
            "accuracy": round(float((logs or {})["accuracy"]), 4),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "images_per_second": round(self.batch_size / step_seconds, 1),
            "eta_seconds": round(eta, 1),
        }
        text = "loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_second:.0f} images/s".format(**record)
        text += f"  {duration(eta)} left"
        self.bar.update(self.task, completed=batch + 1, text=text)
        if now - self.recorded >= RECORD_EVERY_S:
            self.recorded = now
            self.log.write("step", **record)
        if not self.log.console.is_terminal and now - self.printed >= LINE_EVERY_S:
            self.printed = now
            self.log.console.print(f"epoch {self.epoch + 1}/{self.epochs}  step {batch + 1}/{self.steps}  {text}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {name: round(float(value), 5) for name, value in (logs or {}).items()}
        self.log.write("epoch", epoch=epoch + 1, epochs=self.epochs, **logs)
        self.log.console.print(
            "epoch {}/{}  loss {loss:.3f}  accuracy {accuracy:.3f}  val loss {val_loss:.3f}  "
            "val accuracy {val_accuracy:.3f}".format(epoch + 1, self.epochs, **logs),
            highlight=False,
        )

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.bar.stop()


def duration(seconds: float) -> str:
    """`75` as `1:15`, `4000` as `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
