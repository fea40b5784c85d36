"""A manifest is read by this release, whichever release wrote it."""

import copy
import json
from typing import Any

import pytest
from pydantic import ValidationError

from training.contract.architecture import Architecture
from training.contract.manifest import Manifest, SplitMetrics

SMALL = {"depths": [1, 1], "cardinality": 4, "base_width": 4, "stem_width": 16}
# as a release wrote it that kept the architecture in the config alone
EARLIER: dict[str, Any] = {  # Any: JSON
    "name": "flowers",
    "version": 3,
    "created": "2026-01-01T00:00:00Z",
    "labels": ["daisy", "tulip"],
    "preprocessing": {"height": 32, "width": 48},
    "variants": {"fp32": {"file": "model.onnx", "accuracy": 0.9, "images_per_second": 20}},
    "metrics": {"test": {"images": 10, "loss": 0.1, "accuracy": 0.9, "top5_accuracy": 1}},
    "parity": {"images": 10, "top1_equal": 10, "max_abs_difference": 1e-7},
    "config": {"epochs": 3, "architecture": SMALL},
    "dataset": {"path": "flowers", "fingerprint": "0", "images": {"train": 10}, "seed": 0},
    "parameters": {},
    "training_seconds": 1,
    "libraries": {},
}


def read(document: dict[str, Any]) -> Manifest:
    return Manifest.model_validate_json(json.dumps(document))


def test_the_architecture_is_read_from_the_config_of_an_earlier_release() -> None:
    assert read(EARLIER).architecture == Architecture(depths=(1, 1), cardinality=4, base_width=4, stem_width=16)


def test_a_manifest_says_its_architecture_twice_so_that_an_earlier_release_reads_it() -> None:
    written = json.loads(read(EARLIER).model_dump_json())
    assert written["architecture"] == written["config"]["architecture"] == SMALL
    assert read(written) == read(EARLIER)


@pytest.mark.parametrize("architecture", [None, {"blocks": "attention"}, {**SMALL, "depths": []}, "resnext50"])
def test_a_version_of_an_unknown_architecture_can_be_read_all_the_same(architecture: object) -> None:
    document = copy.deepcopy(EARLIER)
    document["config"]["architecture"] = architecture
    manifest = read(document)
    assert manifest.architecture is None
    assert manifest.config["architecture"] == architecture


def test_a_config_without_an_architecture_is_no_error() -> None:
    assert read(EARLIER | {"config": {}}).architecture is None


def test_fields_of_a_later_release_are_ignored() -> None:
    assert read(EARLIER | {"field_of_the_future": 1}) == read(EARLIER)


@pytest.mark.parametrize("changes", [{"schema_version": 2}, {"labels": ["one"]}, {"config": []}, {"parity": None}])
def test_a_damaged_manifest_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        read(EARLIER | changes)


def test_an_accuracy_comes_with_its_interval() -> None:
    metrics = SplitMetrics(images=27, loss=0.5, accuracy=21 / 27, top5_accuracy=1)
    assert metrics.model_dump()["accuracy_interval"] == pytest.approx((0.59, 0.89), abs=0.005)


BESIDE = [
    "../1/model.onnx",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".",
    "",
    "./model.onnx",
    "a//b",
    "a/",
    "..\\\\b",
    "a\x00b",
]


@pytest.mark.parametrize("path", BESIDE)
def test_a_file_outside_the_versions_folder_is_refused(path: str) -> None:
    variant = EARLIER["variants"]["fp32"]
    for change in (
        {"files": {path: "0" * 64}},
        {"variants": {"fp32": {**variant, "file": path}}},
        {"variants": {"fp32": {**variant, "cpu_file": path}}},
    ):
        with pytest.raises(ValidationError, match="should lead to a file below the version's folder, it is"):
            read(EARLIER | change)


def test_files_below_the_versions_folder_are_taken() -> None:
    assert read(EARLIER | {"files": {"report/history.png": "0", "model.onnx": "0", "a..b": "0"}}).files
