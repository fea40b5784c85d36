"""Features of images, which are computed once."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.training.conftest import Trained
from training.datasets.layout import Sample
from training.datasets.loading import load, read_samples
from training.heads import features as module
from training.heads.features import Extractor, FeatureStore, FeatureStoreError, extractor, features_of
from training.network import resnext
from training.network.runtime import keras


@pytest.fixture
def samples(trained: Trained) -> list[Sample]:
    return read_samples(trained.run.samples)[::90]


class Network:
    """The trained backbone, which counts the images that it gets."""

    def __init__(self, trained: Trained) -> None:
        self.extract = extractor(onnx.load(trained.repository.path(1) / "model.onnx"))
        self.images = 0

    def __call__(self) -> Extractor:
        def counted(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            self.images += len(images)
            return self.extract(images)

        return counted


def test_features_are_those_that_keras_gives(trained: Trained, samples: list[Sample], tmp_path: Path) -> None:
    store, pixels = FeatureStore(tmp_path), trained.config.preprocessing
    found, computed = features_of(samples, pixels, store, "key", tmp_path, Network(trained), print, print)
    assert computed == len(samples)
    network = resnext.build(trained.config.architecture, pixels, 10)
    network.load_weights(trained.repository.path(1) / "model.weights.h5")
    pool = keras.Model(network.input, network.get_layer("pool").output)
    plain = [replace(sample, split="all") for sample in samples]
    images = load(plain, pixels, tmp_path, ("all",))["all"].images.astype(np.float32)
    np.testing.assert_allclose(found, pool(images, training=False), atol=1e-5)


def test_only_new_images_are_computed(trained: Trained, samples: list[Sample], tmp_path: Path) -> None:
    store, network, pixels = FeatureStore(tmp_path), Network(trained), trained.config.preprocessing
    few, _ = features_of(samples[:5], pixels, store, "key", tmp_path, network, print, print)
    moved = [replace(sample, path=tmp_path / "gone", name="other") for sample in samples[:5]]
    again, computed = features_of([*samples[5:8], *moved], pixels, store, "key", tmp_path, network, print, print)
    assert (computed, network.images) == (3, 8)
    np.testing.assert_array_equal(again[3:], few)
    _, computed = features_of(samples[:5], pixels, store, "other weights", tmp_path, network, print, print)
    assert computed == 5


def test_the_same_picture_twice_is_computed_once(trained: Trained, samples: list[Sample], tmp_path: Path) -> None:
    twice = tmp_path / "twice.png"
    shutil.copy(samples[0].path, twice)
    pair = [samples[0], replace(samples[0], path=twice, name="twice")]
    network = Network(trained)
    found, computed = features_of(
        pair, trained.config.preprocessing, FeatureStore(tmp_path), "key", tmp_path, network, print, print
    )
    assert (computed, network.images, len(found)) == (1, 1, 2)


def test_the_store_stays_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 40 * 400)
    store = FeatureStore(tmp_path)
    names = [hashlib.sha256(bytes([i])).hexdigest() for i in range(60)]
    row = np.ones(100, np.float32)
    for name in names:
        store.add("key", {name: row})
        store.find("key", names[:1])  # asked for often
    kept = store.find("key", names)
    assert 25 <= len(kept) <= 41
    assert names[0] in kept
    assert names[-1] in kept
    assert names[1] not in kept


def test_features_of_another_form_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path)
    store.add("key", {"a": np.ones(3, np.float32)})
    assert store.find("key", ["a"])
    monkeypatch.setattr(module, "FORM", module.FORM + 1)
    assert not store.find("key", ["a"])


def test_a_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "features.sqlite").write_text("no database" * 100)
    with pytest.raises(FeatureStoreError, match=r"features\.sqlite should hold .* remove it, and they are computed"):
        FeatureStore(tmp_path).find("key", ["a"])


def test_a_store_that_fails_costs_time_only(trained: Trained, samples: list[Sample], tmp_path: Path) -> None:
    store, said = FeatureStore(tmp_path), list[str]()
    store.path.write_text("no database" * 100)
    pixels, network = trained.config.preprocessing, Network(trained)
    found, computed = features_of(samples[:3], pixels, store, "key", tmp_path, network, print, said.append)
    assert (len(found), computed) == (3, 3)
    assert len(said) == 2
    assert said[1].startswith("features are not kept: ")
