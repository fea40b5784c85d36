"""The progress of a fit, for a person who watches and for other processes."""

import io
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from training.network.progress_bar import ProgressCallback
from training.runs.console import ProgressLog
from training.runs.progress import read_progress


def test_a_line_says_where_the_training_is_and_how_long_it_has_left(tmp_path: Path) -> None:
    printed = io.StringIO()
    log = ProgressLog(tmp_path / "progress.jsonl", Console(file=printed, width=120))
    log.announce("training", "on a CPU")
    callback = ProgressCallback(log, epochs=3, steps=10, batch_size=32, epoch=1, step=4)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1)))
    callback.on_train_begin()
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0, {"loss": 2.0, "accuracy": 0.1})  # it traces the graph: the clock starts after it
    callback.on_train_batch_end(1, {"loss": 0.5, "accuracy": 0.75})
    callback.on_train_end()
    line = printed.getvalue().splitlines()[-1]
    assert line.startswith("epoch 2/3  step 6/10  loss 0.500  accuracy 0.750  ")
    assert line.endswith(" left")
    step = read_progress(tmp_path / "progress.jsonl").step
    assert step is not None
    assert (step.epoch, step.step, step.loss, step.accuracy) == (2, 6, 0.5, 0.75)
    assert step.eta_seconds is not None
