"""A line in the worker's own log for each phase that begins and each epoch that ends, from `progress.jsonl`."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

from training.runs.progress import Epoch, kind_of, lines
from training.runs.run import Run

POLL_S = 1.0

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def progress_logged(run: Run, poll_s: float = POLL_S) -> AsyncIterator[None]:
    """Logs what happens to the run within the block."""
    offset = run.progress.stat().st_size if run.progress.exists() else 0
    phase = None

    def log_new() -> None:
        nonlocal offset, phase
        for end, line in lines(run.progress, offset):
            offset = end
            kind = kind_of(line)
            if kind == "phase":
                before, phase = phase, json.loads(line)["phase"]
                if phase != before:  # a phase says what it does more than once
                    logger.info("job %s: %s", run.name, phase)
            elif kind == "epoch":
                epoch = Epoch.model_validate_json(line)
                what = f"val accuracy {epoch.val_accuracy:.3f}, loss {epoch.loss:.3f}"
                logger.info("job %s: epoch %d of %d, %s", run.name, epoch.epoch, epoch.epochs, what)

    async def follow() -> None:
        while True:
            await asyncio.sleep(poll_s)
            log_new()

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        log_new()
