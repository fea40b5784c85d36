"""Starting from a published version's weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Trained
from training.config import TrainConfig
from training.contract.repository import ModelRepository
from training.network import resnext
from training.network.initial_weights import HEAD, InitialWeightsError, load_initial, pinned_version
from training.network.runtime import keras
from training.runs.run import Run


def network(config: TrainConfig, classes: int) -> keras.Model:
    return resnext.build(config.architecture, config.preprocessing, classes)


def test_the_same_labels_take_everything(trained: Trained) -> None:
    model = network(trained.config, 10)
    load_initial(model, trained.config, trained.manifest.labels, trained.repository, 1)
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        images, expected = golden["images"].astype(np.float32), golden["probabilities"]
    np.testing.assert_allclose(keras.ops.softmax(model(images, training=False)), expected, atol=1e-5)


@pytest.mark.parametrize("labels", [list("abcdefghij"), ["0", "1", "2"]])
def test_other_labels_take_the_body_and_a_new_head(trained: Trained, labels: list[str]) -> None:
    model = network(trained.config, len(labels))
    head = [w.numpy() for w in model.get_layer(HEAD).weights]
    load_initial(model, trained.config, labels, trained.repository, 1)
    source = network(trained.config, 10)
    source.load_weights(trained.repository.path(1) / "model.weights.h5")
    for name in ("stem_conv", "stage1_block1_norm1", "stage2_block1_conv2"):
        for ours, theirs in zip(model.get_layer(name).weights, source.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, before in zip(model.get_layer(HEAD).weights, head, strict=True):
        np.testing.assert_array_equal(ours, before)


def test_another_input_size_is_no_obstacle(trained: Trained) -> None:
    config = trained.config.model_copy(update={"image_size": 48})
    load_initial(network(config, 10), config, trained.manifest.labels, trained.repository, 1)


def test_another_network_is_refused(trained: Trained) -> None:
    wider = trained.config.architecture.model_copy(update={"cardinality": 8})
    config = trained.config.model_copy(update={"architecture": wider})
    with pytest.raises(InitialWeightsError, match=r"version 1 is resnext8_4x4d .* this training is resnext8_8x4d"):
        load_initial(network(config, 10), config, trained.manifest.labels, trained.repository, 1)


def test_a_version_without_weights_is_refused(trained: Trained, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path, "small")
    with repository.staging() as staged:
        shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
        (staged / "model.weights.h5").unlink()
        (staged / "manifest.json").unlink()
        repository.publish(staged, trained.manifest)
    with pytest.raises(InitialWeightsError, match=r"version 1 should hold model\.weights\.h5"):
        load_initial(network(trained.config, 10), trained.config, trained.manifest.labels, repository, 1)


def test_live_means_what_was_live_when_the_run_began(trained: Trained, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models", "small")
    run = Run(tmp_path)
    assert pinned_version(run, "random", repository) is None
    with pytest.raises(InitialWeightsError, match="init is live, and model 'small' has no active version"):
        pinned_version(run, "live", repository)
    assert pinned_version(run, "live", trained.repository) == 1
    assert pinned_version(run, "live", repository) == 1  # though no version is active there
