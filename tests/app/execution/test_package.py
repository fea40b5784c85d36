"""A version is served only with the right files, graph and golden answers."""

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from app.execution.package import ModelError
from app.execution.session import Execution
from tests.app.execution.devices import Device, golden, load
from tests.app.network import LABELS, PREPROCESSING, network, publish, random_images, reference
from training.contract.manifest import CPU_FILE, GOLDEN_FILE, INT8_FILE, MODEL_FILE
from training.contract.repository import ModelRepository
from training.errors import ContractError
from training.phases.verify import compare


def test_tampered_file_is_refused(repository: ModelRepository) -> None:
    version = publish(repository)
    path = repository.path(version) / MODEL_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ContractError, match="should have SHA-256"):
        load(repository, version)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            golden(probabilities=reference(network(1), random_images(4))),
            "should be within 0.0001 of Keras', they differ by",
        ),
        (golden(probabilities=np.full((4, len(LABELS)), np.nan, np.float32)), "they differ by nan"),
        (golden(images=random_images(4).astype(np.float32)), "it has float32"),
        (golden(images=random_images(4)[:, :8]), r"it has uint8 \[4, 8, 16, 3\]"),
        (golden(images=random_images(0), probabilities=np.zeros((0, 7))), "at least one"),
        ({"images": random_images(4)}, "should hold images and probabilities"),
        (golden(images=np.array([{"a": 1}], object)), "should hold images and probabilities"),
    ],
)
def test_golden_images_that_do_not_agree_are_refused(
    repository: ModelRepository, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(repository, publish(repository, golden=arrays))


def test_top_class_that_differs_is_refused_though_it_is_close(repository: ModelRepository) -> None:
    model = network(0)
    weights = next(i for i in model.graph.initializer if i.name == "dense")
    weights.raw_data = np.zeros((8, len(LABELS)), np.float32).tobytes()  # all classes are equally likely
    arrays = golden(probabilities=reference(model, random_images(4)))
    arrays["probabilities"][:, 3] += 5e-5
    with pytest.raises(ModelError, match="top class should be Keras' on all 4 images, it differs on 4"):
        load(repository, publish(repository, model=model, golden=arrays))


def test_a_tie_that_the_verification_forgives_is_served(repository: ModelRepository) -> None:
    model = network(0)
    weights = next(i for i in model.graph.initializer if i.name == "dense")
    weights.raw_data = np.zeros((8, len(LABELS)), np.float32).tobytes()  # all classes are equally likely
    served = reference(model, random_images(4))
    arrays = golden(probabilities=served.copy())
    arrays["probabilities"][:, 3] += 5e-7  # Keras names another class than ONNX Runtime, by less than counts
    assert compare(arrays["probabilities"], served).top1_equal == 4
    load(repository, publish(repository, model=model, golden=arrays))


def test_golden_file_that_is_no_archive_is_refused(repository: ModelRepository) -> None:
    version = publish(repository)
    manifest = repository.manifest(version)
    with repository.staging() as folder:
        (folder / MODEL_FILE).write_bytes((repository.path(version) / MODEL_FILE).read_bytes())
        (folder / GOLDEN_FILE).write_bytes(b"PK\3\4 not really")
        version = repository.publish(folder, manifest).version
    with pytest.raises(ModelError, match=r"golden.npz should hold"):
        load(repository, version)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"element": TensorProto.FLOAT},
            r"inputs should be image tensor\(uint8\) \[N, 16, 16, 3\], they are image tensor\(float\)",
        ),
        ({"input_name": "pixels"}, r"they are pixels tensor\(uint8\)"),
        ({"batch": 4}, r"they are image tensor\(uint8\) \[4, 16, 16, 3\]"),
        ({"classes": 5}, r"outputs should be probabilities tensor\(float\) \[N, 7\], they are .* 5\]"),
    ],
)
def test_graph_that_breaks_the_contract_is_refused(
    repository: ModelRepository, change: dict[str, Any], message: str
) -> None:
    version = publish(repository, model=network(**change), golden=golden())
    with pytest.raises(ModelError, match=message):
        load(repository, version)


def test_size_that_is_not_the_manifests_is_refused(repository: ModelRepository) -> None:
    version = publish(repository, preprocessing=PREPROCESSING.model_copy(update={"height": 32}))
    with pytest.raises(ModelError, match=r"should be image tensor\(uint8\) \[N, 32, 16, 3\]"):
        load(repository, version)


def test_file_that_is_no_network_is_refused(repository: ModelRepository) -> None:
    version = publish(repository)
    manifest = repository.manifest(version)
    with repository.staging() as folder:
        (folder / MODEL_FILE).write_bytes(b"no protobuf")
        np.savez(folder / GOLDEN_FILE, **golden())
        version = repository.publish(folder, manifest).version
    with pytest.raises(ModelError, match=r"model.onnx cannot be opened on CPUExecutionProvider"):
        load(repository, version)


def test_copied_folder_is_refused(repository: ModelRepository) -> None:
    repository.path(publish(repository)).rename(repository.folder / "5")
    with pytest.raises(
        ModelError, match="should be that of version 5 of 'resnext50', it is that of version 1 of 'resnext50'"
    ):
        load(repository, 5)


def test_another_models_version_is_refused(repository: ModelRepository) -> None:
    version = publish(repository)
    manifest = repository.manifest(version).model_copy(update={"name": "other"})
    (repository.path(version) / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(ModelError, match="it is that of version 1 of 'other'"):
        load(repository, version)


@pytest.mark.parametrize("name", [GOLDEN_FILE, CPU_FILE])
def test_unlisted_file_is_refused(repository: ModelRepository, name: str) -> None:
    version = publish(repository, cpu=network())
    manifest = repository.manifest(version)
    del manifest.files[name]
    (repository.path(version) / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(ContractError, match=rf"{name} should be among the manifest's files"):
        load(repository, version)


def test_a_cpu_opens_the_file_for_cpus_and_a_gpu_the_exported_one(repository: ModelRepository) -> None:
    right = golden()  # of network(0)
    for_cpus = publish(repository, model=network(1), cpu=network(0), golden=right)
    assert load(repository, for_cpus).precision == "fp32"
    assert load(repository, for_cpus, execution=Execution(threads=2)).precision == "fp32"  # streams open it, too
    with pytest.raises(ModelError, match=r"within 0.0001 of Keras'"):
        load(repository, for_cpus, execution=Device())
    exported = publish(repository, model=network(0), cpu=network(1), golden=right)
    assert load(repository, exported, execution=Device()).precision == "fp32"
    with pytest.raises(ModelError, match=r"within 0.0001 of Keras'"):
        load(repository, exported)


def test_a_manifest_of_an_earlier_release_knows_no_file_for_cpus(repository: ModelRepository) -> None:
    version = publish(repository)
    path = repository.path(version) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["variants"]["fp32"]["cpu_file"]
    path.write_text(json.dumps(manifest))
    assert load(repository, version).precision == "fp32"


def test_what_is_not_opened_is_not_read(repository: ModelRepository) -> None:
    version = publish(repository, int8=network())
    (repository.path(version) / INT8_FILE).write_bytes(b"torn")
    assert load(repository, version, precision="fp32").precision == "fp32"
    with pytest.raises(ContractError, match="should have SHA-256"):
        load(repository, version)


def test_provider_that_does_not_work_is_refused(repository: ModelRepository) -> None:
    with pytest.raises(ModelError, match="OpenVINO"):
        load(repository, publish(repository), execution=Execution("openvino"))
