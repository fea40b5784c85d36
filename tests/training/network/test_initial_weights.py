"""Starting from a published version's weights."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Trained
from training.config import InitialWeights, TrainConfig
from training.network import resnext
from training.network.initial_weights import load_source
from training.network.published_weights import OUR_HEAD
from training.network.runtime import keras
from training.runs.source import Source, find_source
from training.weights.store import WeightsStore

NO_WEIGHTS = WeightsStore(Path("no weights"))


def load(model: keras.Model, trained: Trained, labels: list[str]) -> None:
    load_source(model, source_of(trained), labels, trained.repository, NO_WEIGHTS)


def source_of(trained: Trained) -> Source:
    source = find_source(InitialWeights.parse("1"), trained.repository, NO_WEIGHTS)
    assert source
    return source


def network(config: TrainConfig, classes: int) -> keras.Model:
    return resnext.build(config.architecture, config.preprocessing, classes)


def test_the_same_labels_take_everything(trained: Trained) -> None:
    model = network(trained.config, 10)
    load(model, trained, trained.manifest.labels)
    with np.load(trained.repository.path(1) / "golden.npz") as golden:
        images, expected = golden["images"].astype(np.float32), golden["probabilities"]
    np.testing.assert_allclose(keras.ops.softmax(model(images, training=False)), expected, atol=1e-5)


@pytest.mark.parametrize("labels", [list("abcdefghij"), ["0", "1", "2"]])
def test_other_labels_take_the_body_and_a_new_head(trained: Trained, labels: list[str]) -> None:
    model = network(trained.config, len(labels))
    head = [w.numpy() for w in model.get_layer(OUR_HEAD).weights]
    load(model, trained, labels)
    source = network(trained.config, 10)
    source.load_weights(trained.repository.path(1) / "model.weights.h5")
    for name in ("stem_conv", "stage1_block1_norm1", "stage2_block1_conv2"):
        for ours, theirs in zip(model.get_layer(name).weights, source.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, before in zip(model.get_layer(OUR_HEAD).weights, head, strict=True):
        np.testing.assert_array_equal(ours, before)


def test_another_input_size_is_no_obstacle(trained: Trained) -> None:
    load(network(trained.config.model_copy(update={"image_size": 48}), 10), trained, trained.manifest.labels)
