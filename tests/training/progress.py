"""Events for a `progress.jsonl`. Figures that a test does not name are made up."""

from training.runs.progress import Epoch, Step


def step(step: int, *, epoch: int = 1, loss: float = 1.0, **figures: float) -> Step:
    return Step(epoch=epoch, epochs=3, step=step, steps=94, loss=loss, **figures)


def epoch(epoch: int, *, loss: float = 0.5, **figures: float) -> Epoch:
    measured = {"accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.75, **figures}
    return Epoch(epoch=epoch, epochs=3, loss=loss, **measured)
