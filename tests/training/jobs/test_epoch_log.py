import asyncio
import logging
from pathlib import Path

import pytest
from rich.console import Console

from training.jobs.epoch_log import epochs_logged
from training.runs.progress import ProgressLog
from training.runs.run import Run

FIGURES = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.75}


def test_each_epoch_of_the_block_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path / "job")
    progress = ProgressLog(run.progress, Console(quiet=True))
    progress.write("epoch", epoch=1, epochs=3, **FIGURES)

    async def follow() -> None:
        async with epochs_logged(run, poll_s=0.001):
            progress.write("step", epoch=2, loss=0.4)
            progress.write("epoch", epoch=2, epochs=3, **FIGURES)
            while not caplog.messages:  # noqa: ASYNC110  a log has no event to wait for
                await asyncio.sleep(0.001)
            progress.write("epoch", epoch=3, epochs=3, **FIGURES)  # and the process ends before the next look

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    assert caplog.messages == [f"job job: epoch {n} of 3, val accuracy 0.750, loss 0.500" for n in (2, 3)]


def test_a_run_without_progress_yet_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        async with epochs_logged(Run(tmp_path / "job")):
            pass

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    assert caplog.messages == []
