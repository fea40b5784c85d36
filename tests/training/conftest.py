"""One small training run on real digits, which many tests share."""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from training.config import TrainConfig
from training.contract.manifest import Manifest
from training.contract.repository import ModelRepository
from training.datasets.public import make_digits
from training.phases.order import run_phases
from training.runs.run import Run

SMALL = {"depths": [1, 1], "cardinality": 4, "base_width": 4, "stem_width": 16}


@dataclass(frozen=True)
class Trained:
    config: TrainConfig
    run: Run
    repository: ModelRepository
    manifest: Manifest
    printed: str


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder)
    return folder


@pytest.fixture(scope="session")
def small_config(digits: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "data": digits,
            "name": "small",
            "image_size": 32,
            "architecture": SMALL,
            "augment": "characters",
            "batch_size": 64,
            "learning_rate": 5e-3,
            "epochs": 3,
            "deterministic": True,
            # so little training leaves INT8 a few of the held-out images behind
            "gate": {"precision_budget": 0.05, "agreement": 0.8},
        }
    )


@pytest.fixture(scope="session")
def trained(small_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    repository = ModelRepository(folder / "models", small_config.name)
    console = Console(file=io.StringIO(), width=120)
    run = Run(folder / "run")
    run.claim(small_config)
    run_phases(run, repository, console)
    # of a published package the run keeps the report alone; some tests go on from before that
    published = shutil.ignore_patterns("manifest.json", "report")
    shutil.copytree(repository.path(1), run.package, dirs_exist_ok=True, ignore=published)
    assert isinstance(console.file, io.StringIO)
    return Trained(small_config, run, repository, repository.manifest(1), console.file.getvalue())
