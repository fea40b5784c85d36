"""The measured models: the code that trains and exports makes them, the code that serves loads them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from app.execution.loading import load_model
from app.execution.session import Execution
from benchmarks.models import NETWORKS, VERSIONS, make
from benchmarks.photos import small_photos
from benchmarks.servers import MODEL, MODELS, ROOT
from training.contract.manifest import Precision
from training.contract.repository import ModelRepository
from training.images.decode import decode

MADE = str((MODELS / "made").relative_to(ROOT))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    repository = ModelRepository(tmp_path_factory.mktemp("models"), MODEL)
    make("tiny", repository)
    return repository


def test_the_first_version_is_live_and_the_others_wait(tiny: ModelRepository) -> None:
    assert tiny.active() == 1
    assert tiny.versions() == list(range(1, VERSIONS + 1))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("version", range(1, VERSIONS + 1))
def test_the_service_tells_the_photographs_apart(tiny: ModelRepository, version: int, precision: Precision) -> None:
    """Each version names the same class: answers are checked while one version takes over from the other."""
    model = load_model(tiny, version, Execution(), precision, max_batch="auto", limit=16)
    *_, classes = NETWORKS["tiny"]
    images = np.stack([decode(photo, model.preprocessing) for photo in small_photos()[:classes]])
    assert model.run(images).argmax(1).tolist() == list(range(classes))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Ours as `make` sees it, with models that have just been made."""
    for name in ("Makefile", "benchmarks", "training", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / MADE).parent.mkdir(parents=True)
    (tmp_path / MADE).touch()
    return tmp_path


def is_made(checkout: Path, *options: str) -> bool:
    command = ["make", "--question", "--assume-old=.venv/installed", *options, MADE]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_models_that_are_newer_than_the_code_stay(checkout: Path) -> None:
    assert is_made(checkout)


@pytest.mark.parametrize(
    "source",
    [
        "benchmarks/models.py",
        "benchmarks/photos.py",
        "training/exported/int8.py",
        "training/system/durable.py",
        "requirements/dev.txt",
    ],
)
def test_models_are_made_anew_when_what_makes_them_has_changed(checkout: Path, source: str) -> None:
    assert not is_made(checkout, f"--what-if={source}")
