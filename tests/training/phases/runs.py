"""The trained run, taken back to an earlier point: nothing before that point is computed again."""

import shutil
from pathlib import Path

from tests.training.conftest import Trained
from training.config import TrainConfig
from training.runs.run import Run


def verified(trained: Trained, folder: Path, **changes: object) -> Run:
    """Copies the trained run as it was before its variants were made, with changes to its config."""
    shutil.copytree(trained.run.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    run = Run(folder)
    run.forget("quantizing", "publishing")
    config = trained.config.model_dump(mode="json") | changes
    run.config_file.write_text(TrainConfig.model_validate(config).model_dump_json())
    return run


def checked(trained: Trained, folder: Path, config: TrainConfig) -> Run:
    """Begins a run with another config, whose images were checked by the trained run."""
    run = Run(folder)
    run.claim(config)
    for file in (trained.run.samples, trained.run.folder / "checking.json"):
        shutil.copy(file, folder)
    return run
