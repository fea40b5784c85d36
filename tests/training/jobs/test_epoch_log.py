import asyncio
import logging
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.progress import epoch, step
from training.jobs.epoch_log import epochs_logged
from training.runs.console import ProgressLog
from training.runs.run import Run


def test_each_epoch_of_the_block_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path / "job")
    progress = ProgressLog(run.progress, Console(quiet=True))
    progress.epoch(epoch(1))

    async def follow() -> None:
        async with epochs_logged(run, poll_s=0.001):
            progress.step(step(1, epoch=2, loss=0.4))
            progress.epoch(epoch(2))
            while not caplog.messages:  # noqa: ASYNC110  a log has no event to wait for
                await asyncio.sleep(0.001)
            progress.epoch(epoch(3))  # and the process ends before the next look

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    assert caplog.messages == [f"job job: epoch {n} of 3, val accuracy 0.750, loss 0.500" for n in (2, 3)]


def test_a_run_without_progress_yet_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        async with epochs_logged(Run(tmp_path / "job")):
            pass

    with caplog.at_level(logging.INFO):
        asyncio.run(follow())
    assert caplog.messages == []
