"""The weights that a run starts from: which a setting names, and that they are pinned."""

import shutil
from pathlib import Path

import pytest

from tests.training.conftest import SMALL, Trained
from training.config import InitialWeights, TrainConfig
from training.contract.manifest import Preprocessing
from training.contract.repository import ModelRepository
from training.errors import ContractError
from training.runs import source as module
from training.runs.run import Run, RunError
from training.runs.source import InitialWeightsError, find_source, pinned_source, with_source
from training.weights.store import WeightsNotFound, WeightsStore


@pytest.fixture
def weights(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


@pytest.fixture(scope="module")
def repository(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """The trained version alone: other tests publish more beside it."""
    repository = ModelRepository(tmp_path_factory.mktemp("models"), "small")
    shutil.copytree(trained.repository.path(1), repository.folder / "1")
    repository.activate(1)
    return repository


@pytest.mark.parametrize("init", ["live", "1", "small", "small@1"])
def test_a_version_is_named_in_four_ways(
    trained: Trained, repository: ModelRepository, weights: WeightsStore, init: str
) -> None:
    source = find_source(InitialWeights.parse(init), repository, weights)
    assert source
    assert (source.model, source.version, source.weights) == ("small", 1, None)
    assert str(source) == "small@1"
    assert source.backbone == trained.manifest.files["model.weights.h5"]
    assert source.labels == trained.manifest.labels


def test_another_model_is_found_beside_the_runs_own(repository: ModelRepository, weights: WeightsStore) -> None:
    other = ModelRepository(repository.root, "other")
    source = find_source(InitialWeights.parse("small"), other, weights)
    assert source
    assert str(source) == "small@1"
    with pytest.raises(InitialWeightsError, match="init names model 'other', which has no active version"):
        find_source(InitialWeights.parse("live"), other, weights)


def test_what_is_not_there_is_refused(repository: ModelRepository, weights: WeightsStore) -> None:
    with pytest.raises(ContractError, match="no version 99"):
        find_source(InitialWeights.parse("99"), repository, weights)
    with pytest.raises(WeightsNotFound, match="no weights 'tv_in1k'"):
        find_source(InitialWeights.parse("weights:tv_in1k"), repository, weights)


def test_a_version_without_weights_is_refused(trained: Trained, weights: WeightsStore, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path, "small")
    with repository.staging() as staged:
        shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
        (staged / "model.weights.h5").unlink()
        (staged / "manifest.json").unlink()
        repository.publish(staged, trained.manifest)
    with pytest.raises(InitialWeightsError, match=r"version 1 should hold model\.weights\.h5"):
        find_source(InitialWeights.parse("1"), repository, weights)


def test_a_run_pins_what_was_active_when_it_began(
    repository: ModelRepository, trained: Trained, weights: WeightsStore, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    config = trained.config.model_copy(update={"init": "live"})
    empty = ModelRepository(tmp_path / "models", "small")
    assert pinned_source(run, trained.config, empty, weights) is None
    with pytest.raises(InitialWeightsError, match="no active version"):
        pinned_source(run, config, empty, weights)
    first = pinned_source(run, config, repository, weights)
    assert pinned_source(run, config, empty, weights) == first  # though no version is active there
    run.init.write_text("{}")
    with pytest.raises(RunError, match=r"init\.json is damaged: .*\. Remove the file, and the run starts from"):
        pinned_source(run, config, empty, weights)


def test_another_network_is_refused(
    repository: ModelRepository, trained: Trained, weights: WeightsStore, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate(
        {**trained.config.model_dump(), "init": "1", "architecture": {**SMALL, "cardinality": 8}}
    )
    with pytest.raises(InitialWeightsError, match=r"small@1 is resnext8_4x4d .* this training is resnext8_8x4d"):
        pinned_source(Run(tmp_path), config, repository, weights)


def test_settings_that_are_left_out_come_from_the_weights(
    repository: ModelRepository, trained: Trained, weights: WeightsStore
) -> None:
    made = with_source({"data": "d", "init": "live"}, repository, weights)
    assert (made["image_size"], made["architecture"]["depths"]) == (32, (1, 1))
    assert with_source({"image_size": 64, "init": "live"}, repository, weights)["image_size"] == 64
    config = TrainConfig.model_validate(made)
    assert config.preprocessing == trained.manifest.preprocessing


def test_another_image_size_keeps_the_share_of_the_crop(
    repository: ModelRepository, weights: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crop of 64 pixels from the middle of 256 would show a button of the coat."""
    found = find_source(InitialWeights.parse("1"), repository, weights)
    assert found
    published = Preprocessing(height=224, width=224, resize_mode="crop", resize=256)
    source = found.model_copy(update={"preprocessing": published})
    monkeypatch.setattr(module, "find_source", lambda *_: source)
    assert with_source({"init": "1"}, repository, weights)["resize"] == 256
    assert with_source({"init": "1", "image_size": "64"}, repository, weights)["resize"] == 73
    squashed = with_source({"init": "1", "resize_mode": "squash", "data": "d"}, repository, weights)
    assert TrainConfig.model_validate(squashed).preprocessing.resize is None


def test_auto_is_random_for_another_network(
    repository: ModelRepository, weights: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source(InitialWeights.parse("1"), repository, weights)
    monkeypatch.setattr(module, "find_source", lambda *_: source)
    assert with_source({"architecture": {"cardinality": 8}}, repository, weights)["init"] == "random"
    assert with_source({"architecture": SMALL, "init": "1"}, repository, weights)["init"] == "1"


def test_auto_is_random_where_there_are_no_weights(repository: ModelRepository, weights: WeightsStore) -> None:
    assert with_source({"data": "d"}, repository, weights) == {"data": "d", "init": "random"}
    assert with_source({"init": 7}, repository, weights) == {"init": 7}  # for TrainConfig to refuse
