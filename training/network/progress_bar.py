"""The progress of `model.fit`: records in the progress log, and a bar on a terminal."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from training.network.divergence import require_finite
from training.network.runtime import keras
from training.runs.console import ProgressLog, duration
from training.runs.progress import RECORD_EVERY_S, Epoch, Step

LINE_EVERY_S = 10.0  # between lines, without a terminal to draw a bar on


class ProgressCallback(keras.callbacks.Callback):
    """A callback that reports once a second: epoch, step, loss, accuracy, learning rate, images/s and time left."""

    def __init__(self, log: ProgressLog, epochs: int, steps: int, batch_size: int, epoch: int, step: int) -> None:
        """Takes the epoch and the step from which the run goes on, both counted from 0."""
        super().__init__()
        self.log, self.epochs, self.steps, self.batch_size = log, epochs, steps, batch_size
        self.epoch, self.first_step = epoch, step
        self.start = epoch * steps + step
        self.clock: float | None = None  # starts after the first step, which traces the graph
        self.shown = self.printed = 0.0
        self.estimated = False
        # a dumb terminal cannot draw over a line
        self.animated = log.console.is_terminal and not log.console.is_dumb_terminal
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=log.console,
            disable=not self.animated,
            transient=True,  # a line for each epoch stays
        )

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.bar.start()
        if not self.bar.tasks:
            self.task = self.bar.add_task("", total=self.steps, epoch="", text="")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.epoch = epoch
        text = "" if self.clock else "tracing the graph"
        # all fields: `reset` removes those that are not given
        self.bar.reset(self.task, total=self.steps, epoch=f"{epoch + 1}/{self.epochs}", text=text)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        if self.clock is None:
            self.clock = now
            return
        if now - self.shown < RECORD_EVERY_S:  # reading the loss waits for the device
            return
        self.shown = now
        logs = {name: float(value) for name, value in (logs or {}).items()}
        require_finite(logs, self.epoch + 1)
        step = self.first_step + batch + 1
        done = self.epoch * self.steps + step
        step_seconds = (now - self.clock) / (done - self.start - 1)  # includes validation and checkpoints
        eta = step_seconds * (self.epochs * self.steps - done)
        record = Step(
            epoch=self.epoch + 1,
            epochs=self.epochs,
            step=step,
            steps=self.steps,
            loss=round(logs["loss"], 4),
            accuracy=round(logs["accuracy"], 4),
            learning_rate=float(self.model.optimizer.learning_rate),
            images_per_second=round(self.batch_size / step_seconds, 1),
            eta_seconds=round(eta, 1),
        )
        if not self.estimated:
            self.estimated = True
            self.log.tell(f"about {duration(eta)} for {self.epochs - self.epoch} epochs of {self.steps} steps")
        text = (
            f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.3f}  {self.batch_size / step_seconds:.0f} images/s"
            f"  {duration(eta)} left"
        )
        self.bar.update(self.task, completed=step, text=text)
        self.log.step(record)
        if not self.animated and now - self.printed >= LINE_EVERY_S:
            self.printed = now
            self.log.console.print(f"epoch {self.epoch + 1}/{self.epochs}  step {step}/{self.steps}  {text}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.first_step = 0
        logs = {name: round(float(value), 5) for name, value in (logs or {}).items()}
        self.log.epoch(Epoch(epoch=epoch + 1, epochs=self.epochs, **logs))
        self.log.console.print(
            "epoch {}/{}  loss {loss:.3f}  accuracy {accuracy:.3f}  val loss {val_loss:.3f}  "
            "val accuracy {val_accuracy:.3f}".format(epoch + 1, self.epochs, **logs),
            highlight=False,
        )

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.bar.stop()
