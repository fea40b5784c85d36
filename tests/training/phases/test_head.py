"""Training the head alone, and all layers after it: what is published, and what a second head saves."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from tests.training.conftest import Trained
from training.config import TrainConfig
from training.contract.manifest import Manifest
from training.contract.repository import ModelRepository
from training.environment import Places
from training.exported.classifier import published
from training.images.decode import decode
from training.network import resnext
from training.network.runtime import keras
from training.phases.order import run_phase, run_phases
from training.runs.records import PublishRecord, TrainingRecord, head_that_stays
from training.runs.run import Run
from training.runs.source import MethodError, with_source
from training.weights.store import WeightsStore

EASY = {"policy": "always", "precision_budget": 0.2, "agreement": 0.7}  # so few images, so small a network


@dataclass(frozen=True)
class Ended:
    run: Run
    manifest: Manifest
    printed: str


def some_digits(digits: Path, folder: Path, labels: str, each: int = 30) -> Path:
    """Copies some images of some digits."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for path in sorted((digits / label).iterdir())[:each]:
            shutil.copy(path, folder / label)
    return folder


def trained_by(repository: ModelRepository, folder: Path, data: Path, **settings: Any) -> Ended:
    typed = {"data": data, "name": repository.name, "init": "live", "batch_size": 16, "gate": EASY, **settings}
    config = TrainConfig.model_validate(with_source(typed, repository, WeightsStore(Places().weights)))
    console, run = Console(file=io.StringIO(), width=120), Run(folder)
    run.claim(config)
    run_phases(run, repository, console)
    assert isinstance(console.file, io.StringIO)
    return Ended(run, repository.manifest(repository.versions()[-1]), console.file.getvalue())


@pytest.fixture(scope="module")
def repository(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """The trained version alone: other tests publish more beside it."""
    repository = ModelRepository(tmp_path_factory.mktemp("models"), "small")
    shutil.copytree(trained.repository.path(1), repository.folder / "1")
    repository.activate(1)
    return repository


@pytest.fixture(scope="module")
def first(repository: ModelRepository, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A head for four of the digits, on the digits' own model."""
    folder = tmp_path_factory.mktemp("first")
    return trained_by(repository, folder / "run", some_digits(digits, folder / "data", "1234"), method="head")


def test_a_head_is_published_as_every_version_is(repository: ModelRepository, first: Ended) -> None:
    manifest = first.manifest
    assert (manifest.version, manifest.labels) == (2, ["1", "2", "3", "4"])
    assert repository.active() == 2
    assert (manifest.method, manifest.init, manifest.init_version) == ("head", "small@1", 1)
    assert manifest.backbone == repository.manifest(1).files["model.weights.h5"]
    assert manifest.parity.top1_equal == manifest.parity.images
    assert set(manifest.variants) == {"fp32", "int8", "fp16"}
    assert manifest.metrics["test"].accuracy > 0.7
    across = manifest.metrics["cross_validation"]
    assert across.images == 120
    assert across.accuracy > 0.7
    repository.verify_files(2)


def test_it_names_images_that_it_has_not_seen(repository: ModelRepository, first: Ended, digits: Path) -> None:
    manifest, classify = published(repository, first.manifest.version)
    images = [
        decode(path, manifest.preprocessing)
        for label in manifest.labels
        for path in sorted((digits / label).iterdir())[-10:]
    ]
    right = classify(np.stack(images)).argmax(1) == np.repeat(np.arange(4), 10)
    assert right.mean() > 0.7


def test_only_the_head_differs_from_the_backbones_files(repository: ModelRepository, first: Ended) -> None:
    old, new = (_constants(repository.path(version) / "model.onnx") for version in (1, first.manifest.version))
    gone, came = ({str(shape) for shape, _ in a - b} for a, b in ((old, new), (new, old)))
    assert gone == {"(128, 10)", "(10,)"}
    assert came == {"(128, 4)", "(4,)"}


def _constants(path: Path) -> set[tuple[tuple[int, ...], bytes]]:
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return {(tensor.shape, tensor.tobytes()) for tensor in tensors if tensor.dtype == np.float32}


def test_a_second_head_computes_only_what_is_new(
    repository: ModelRepository, first: Ended, digits: Path, tmp_path: Path
) -> None:
    """It has a class more and starts from the first: graph, INT8 and most features are there."""
    data = some_digits(digits, tmp_path / "data", "12345")
    second = trained_by(repository, tmp_path / "run", data, method="head", init="2")
    assert (second.manifest.init, second.manifest.labels) == ("small@2", list("12345"))
    assert second.manifest.backbone == first.manifest.backbone
    assert "exporting small@1 once" in first.printed
    assert "once, for all heads" not in second.printed
    assert "features of 150 images: 30 computed" in second.printed
    assert "calibrated on" in first.printed
    assert "calibrated on" not in second.printed
    assert second.manifest.variants["int8"].calibration == first.manifest.variants["int8"].calibration


def test_a_head_needs_weights_to_start_from(repository: ModelRepository, first: Ended, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(first.run.folder, run.folder)
    run.forget("training")
    run.plan.unlink()
    run.init.unlink()
    run.write_config(run.config().model_copy(update={"init": "random"}))
    with pytest.raises(MethodError, match=r"method head needs weights to start from, and init is random"):
        run_phase(run, "training", repository, Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def tuned(repository: ModelRepository, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("tuned")
    data = some_digits(digits, folder / "data", "1234")
    settings = {"learning_rate": 1e-4, "epochs": 2, "augment": "none", "schedule": "constant", "freeze": "stages:1"}
    return trained_by(repository, folder / "run", data, init="1", method="finetune", **settings)


def test_fine_tuning_publishes_its_head_first(repository: ModelRepository, tuned: Ended) -> None:
    manifest = tuned.manifest
    head = repository.manifest(manifest.version - 1)
    assert (head.method, manifest.method) == ("head", "finetune")
    assert head.run == manifest.run == "run"
    assert manifest.parent == head.version
    assert head.backbone
    assert manifest.backbone is None
    assert f"version {head.version} is active" in " ".join(tuned.printed.split())
    record = tuned.run.record("training", TrainingRecord)
    assert (record.method, record.epochs) == ("finetune", 2)
    # its epochs go on from that head: from a new one the first would be near chance, 0.25
    report = repository.path(manifest.version) / "report" / "history.json"
    assert json.loads(report.read_text())[0]["val_accuracy"] >= head.metrics["val"].accuracy - 0.15


def test_a_head_stays_where_the_training_of_all_layers_is_rejected(tuned: Ended, tmp_path: Path) -> None:
    assert head_that_stays(tuned.run) is None  # all layers were trained, and are active
    run = Run(tmp_path / "run")
    shutil.copytree(tuned.run.folder, run.folder)
    run.finish("publishing", PublishRecord(version=tuned.manifest.version, active=False))
    assert head_that_stays(run) == tuned.manifest.version - 1


def test_what_is_frozen_stays(repository: ModelRepository, tuned: Ended) -> None:
    old, new = (_network(repository, version) for version in (1, tuned.manifest.version))
    changed = {
        layer.name
        for layer in new.layers
        if layer.name != "logits"
        and any(
            (a != b).any() for a, b in zip(layer.get_weights(), old.get_layer(layer.name).get_weights(), strict=True)
        )
    }
    assert changed == {f"stage2_block1_{part}" for part in ("conv1", "conv2", "conv3", "shortcut_conv")}


def _network(repository: ModelRepository, version: int) -> keras.Model:
    manifest = repository.manifest(version)
    assert manifest.architecture
    network = resnext.build(manifest.architecture, manifest.preprocessing, len(manifest.labels))
    network.load_weights(repository.path(version) / "model.weights.h5")
    return network
