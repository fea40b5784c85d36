import asyncio
import logging
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.progress import epoch, step
from training.jobs.progress_log import progress_logged
from training.runs.console import ProgressLog
from training.runs.run import Run


def test_each_phase_and_epoch_of_the_block_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path / "job")
    progress = ProgressLog(run.progress, Console(quiet=True))
    progress.begin("checking")
    progress.epoch(epoch(1))

    async def follow() -> None:
        async with progress_logged(run, poll_s=0.001):
            progress.step(step(1, epoch=2, loss=0.4))
            progress.begin("training")
            progress.begin("training")  # with other words
            progress.epoch(epoch(2))
            while not caplog.messages:  # noqa: ASYNC110  a log has no event to wait for
                await asyncio.sleep(0.001)
            progress.epoch(epoch(3))
            progress.begin("exporting")  # and the process ends before the next look

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    epochs = [f"job job: epoch {n} of 3, val accuracy 0.750, loss 0.500" for n in (2, 3)]
    assert caplog.messages == ["job job: training", *epochs, "job job: exporting"]


def test_a_run_without_progress_yet_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        async with progress_logged(Run(tmp_path / "job")):
            pass

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    assert caplog.messages == []
