import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from app.execution.loading import load_model
from app.execution.model import Model, ModelError
from app.execution.provider import Execution, open_session
from app.execution.runner import BoundRunner, DirectRunner, Runner
from app.execution.streams import Streams
from tests.app.network import LABELS, PREPROCESSING, SIZE, network, publish, random_images, reference
from training.contract.manifest import CPU_FILE, GOLDEN_FILE, INT8_FILE, MODEL_FILE, Precision
from training.contract.repository import ModelRepository
from training.errors import ContractError
from training.phases.verify import compare


def load(repository: ModelRepository, version: int, **options: Any) -> Model:  # Any: each option has its own type
    defaults: dict[str, Any] = {"execution": Execution(), "precision": "auto", "max_batch": "auto", "limit": 256}
    return load_model(repository, version, **(defaults | options))


def test_loads_verified_and_warm(repository: ModelRepository) -> None:
    model = load(repository, publish(repository))
    images = random_images(9, seed=5)
    np.testing.assert_allclose(model.run(images), reference(network(0), images), atol=1e-6)
    assert (model.version, model.labels, model.shape) == (1, LABELS, (SIZE, SIZE, 3))
    assert model.max_batch in model.curve
    assert min(model.curve) == 1


def test_max_batch_by_hand_and_bounded_by_the_queue(repository: ModelRepository) -> None:
    version = publish(repository)
    assert load(repository, version, max_batch=6).max_batch == 6
    assert max(load(repository, version, limit=4).curve) <= 4


@dataclass(frozen=True)
class Device(Execution):
    """A device as the service treats a GPU, on the CPU. `broken` fails at a batch size, `wrong` is off there."""

    provider: str = "cuda"
    opened: list[tuple[str, bool]] = field(default_factory=list)  # precision, whether graphs were asked for
    broken: int | None = None
    wrong: int | None = None

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        assert shape == (SIZE, SIZE, 3)
        self.opened.append((precision, self.captures))
        return Flawed(open_session(file, "cpu", 1), sizes, self)


@dataclass(frozen=True)
class Crowded(Execution):
    """A CPU whose cores something else has whenever it is INT8's turn."""

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        runner = super().open(file, precision, shape, sizes)
        return Waiting(runner.session) if precision == "int8" else runner


class Waiting(DirectRunner):
    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.05)  # without a core
        return super().run(images)


class Flawed(BoundRunner):
    def __init__(self, session: Any, sizes: Sequence[int], device: Device) -> None:  # Any: onnxruntime ships no types
        super().__init__(session, sizes, "cpu", graphs=device.captures)
        self.device = device

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = self.rows(len(images))
        if size == self.device.broken and self.device.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().run(images) + np.float32(size == self.device.wrong)


def test_a_cpu_pads_nothing(repository: ModelRepository) -> None:
    model = load(repository, publish(repository))
    assert model.sizes is None
    assert [model.padded(n) for n in (1, 3, 7)] == [1, 3, 7]


def test_a_device_pads_to_sizes_that_are_warm(repository: ModelRepository) -> None:
    model = load(repository, publish(repository), execution=Device(), max_batch=6)
    assert list(model.curve) == [1, 2, 4, 6]
    assert [model.padded(n) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    images = random_images(5, seed=5)
    np.testing.assert_allclose(model.run(images), reference(network(0), images), atol=1e-6)


def test_a_measured_max_batch_is_one_of_the_sizes(repository: ModelRepository) -> None:
    model = load(repository, publish(repository), execution=Device(), limit=20)
    assert model.sizes == [1, 2, 4, 8, 16, 20]
    assert model.max_batch in model.curve
    assert set(model.curve) <= set(model.sizes)


def test_each_size_of_a_device_has_to_pass_the_golden_check(repository: ModelRepository) -> None:
    version = publish(repository)
    with pytest.raises(ModelError, match="they differ by 1"):
        load(repository, version, execution=Device(wrong=2), max_batch=8)


def test_a_version_that_can_not_be_captured_runs_without_graphs(
    repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(broken=2)
    model = load(repository, publish(repository), execution=device, max_batch=4)
    assert device.opened == [("fp32", True), ("fp32", False)]
    assert "version 1 runs without CUDA graphs: operation not permitted when stream is capturing" in caplog.text
    np.testing.assert_allclose(model.run(random_images(2)), reference(network(0), random_images(2)), atol=1e-6)


def test_without_graphs_what_fails_is_refused_at_once(repository: ModelRepository) -> None:
    device = Device(cuda_graphs=False, wrong=2)
    with pytest.raises(ModelError):
        load(repository, publish(repository), execution=device, max_batch=4)
    assert device.opened == [("fp32", False)]


def test_as_many_images_as_there_are_streams_run_in_them(repository: ModelRepository) -> None:
    version = publish(repository)
    model = load(repository, version, execution=Execution(threads=3))
    assert model.streams
    assert model.streams.count == 3
    assert model.streams.max_batch in model.streams.curve
    assert set(model.curve) <= {1, 2}  # so many run in all threads, at most: three have a stream each
    images = random_images(3, seed=6)
    np.testing.assert_allclose(model.run(images, alone=False), reference(network(0), images), atol=1e-6)
    by_hand = load(repository, version, execution=Execution(threads=3), max_batch=6)
    assert (by_hand.max_batch, by_hand.crowd.max_batch) == (6, 6)
    streams = Streams(model.streams.runner, 2, {1: 2.0, 2: 3.0}, max_batch=2)
    assert streams.rate == pytest.approx(4 / 3)


def test_one_thread_has_no_streams(repository: ModelRepository) -> None:
    assert load(repository, publish(repository)).streams is None


def test_tampered_file_is_refused(repository: ModelRepository) -> None:
    version = publish(repository)
    path = repository.path(version) / MODEL_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ContractError, match="should have SHA-256"):
        load(repository, version)


def golden(**changes: Any) -> dict[str, Any]:  # Any: arrays of any kind, also bad ones
    images = random_images(4)
    return {"images": images, "probabilities": reference(network(0), images)} | changes


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
    with pytest.raises(ModelError, match=r"model.onnx can not be opened on CPUExecutionProvider"):
        load(repository, version)


def test_copied_folder_is_refused(repository: ModelRepository) -> None:
    repository.path(publish(repository)).rename(repository.folder / "5")
    with pytest.raises(ModelError, match="manifest of version 5 should say so, it says 1"):
        load(repository, 5)


@pytest.mark.parametrize("name", [GOLDEN_FILE, CPU_FILE])
def test_unlisted_file_is_refused(repository: ModelRepository, name: str) -> None:
    version = publish(repository, cpu=network())
    manifest = repository.manifest(version)
    del manifest.files[name]
    (repository.path(version) / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(ContractError, match=rf"{name} should be among the manifest's files"):
        load(repository, version)


def test_auto_takes_the_precision_that_is_faster_here(repository: ModelRepository) -> None:
    fast_int8 = load(repository, publish(repository, model=network(slow=True), int8=network()))
    assert fast_int8.precision == "int8"
    assert fast_int8.speeds["int8"] > fast_int8.speeds["fp32"]
    slow_int8 = load(repository, publish(repository, int8=network(slow=True)))
    assert slow_int8.precision == "fp32"  # though the manifest says that it was three times as fast
    assert slow_int8.speeds["fp32"] > slow_int8.speeds["int8"]


def test_a_busy_machine_does_not_change_the_choice(repository: ModelRepository) -> None:
    version = publish(repository, model=network(slow=True), int8=network())
    assert load(repository, version, execution=Crowded()).precision == "int8"
    assert load(repository, version, execution=Crowded(threads=2)).precision == "int8"


def test_a_precision_that_is_asked_for_is_taken_or_missed(repository: ModelRepository) -> None:
    both = publish(repository, int8=network(slow=True))
    assert load(repository, both, precision="int8").precision == "int8"
    assert load(repository, both, precision="fp32").precision == "fp32"
    with pytest.raises(ModelError, match="RESNEXT_PRECISION is int8, version 2 has fp32"):
        load(repository, publish(repository), precision="int8")


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


def test_int8_is_held_to_its_own_answers(repository: ModelRepository, caplog: pytest.LogCaptureFixture) -> None:
    images = random_images(4)
    rounded = golden(probabilities_int8=reference(network(), images) + np.float32(0.05))  # another CPU's kernels
    assert "int8" in load(repository, publish(repository, int8=network(), golden=rounded)).speeds
    broken = publish(repository, int8=network(1), golden=golden(probabilities_int8=reference(network(), images)))
    with pytest.raises(ModelError, match=r"within 0.1 of those that it was judged by"):
        load(repository, broken, precision="int8")
    assert load(repository, broken).precision == "fp32"
    assert "int8 of version 2 is left out: golden check" in caplog.text


def test_a_version_of_which_no_precision_is_fit_is_refused(repository: ModelRepository) -> None:
    wrong = reference(network(1), random_images(4))
    with pytest.raises(ModelError, match=r"within 0.0001 of Keras'"):
        load(
            repository,
            publish(repository, int8=network(), golden=golden(probabilities=wrong, probabilities_int8=wrong)),
        )


def test_auto_tries_what_can_win_on_the_provider(repository: ModelRepository) -> None:
    all_three = publish(repository, int8=network(), fp16=network())
    assert set(load(repository, all_three).speeds) == {"int8", "fp32"}
    cuda, compiled = Device(), Device(provider="tensorrt")
    assert set(load(repository, all_three, execution=cuda).speeds) == {"fp16", "fp32"}
    assert cuda.opened == [("fp16", True), ("fp32", True)]
    assert load(repository, all_three, execution=compiled).precision == "fp16"
    assert compiled.opened == [("fp16", False)]  # an engine is minutes
    assert load(repository, publish(repository, int8=network()), execution=Device()).precision == "fp32"
    assert load(repository, all_three, execution=Device(), precision="int8").precision == "int8"
    assert load(repository, all_three, precision="fp16").precision == "fp16"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_is_measured_once(
    repository: ModelRepository, threads: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its later versions are checked, and run as the first one was seen to run best."""
    execution, asked = Execution(threads=threads), set[int]()

    def seconds(model: Model, n: int) -> float:
        asked.add(model.version)
        return (2e-3 if model.precision == "fp32" else 1e-3) * float(n**0.9)

    monkeypatch.setattr(Model, "seconds", seconds)
    monkeypatch.setattr(Model, "cpu_seconds", seconds)
    config = {"architecture": {"depths": [1]}}
    first = load(repository, publish(repository, int8=network(), config=config), execution=execution)
    again = load(repository, publish(repository, 1, int8=network(1), config=config), execution=execution)
    assert asked == {1}
    assert (again.precision, again.speeds, again.curve) == (first.precision, first.speeds, first.curve)
    assert (again.max_batch, again.crowd.max_batch) == (first.max_batch, first.crowd.max_batch)
    assert again.crowd.curve == first.crowd.curve
    images = random_images(3)
    np.testing.assert_allclose(again.run(images, alone=False), reference(network(1), images), atol=1e-6)
    load(repository, publish(repository, int8=network(), config={"architecture": {"depths": [2]}}), execution=execution)
    assert asked == {1, 3}
    wrong = golden(probabilities_int8=reference(network(1), random_images(4)))
    broken = publish(repository, int8=network(), golden=wrong, config=config)
    assert load(repository, broken, execution=execution).precision == "fp32"
    assert "int8 of version 4 is left out: golden check" in caplog.text
    assert asked == {1, 3, 4}  # of float32 nothing more was known than that it is slower


@pytest.mark.parametrize(("speed", "chosen"), [(1.05, "fp32"), (1.2, "int8")])
def test_a_lower_precision_has_to_be_worth_its_accuracy(
    repository: ModelRepository, speed: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "cpu_seconds", lambda model, n: n / (speed if model.precision == "int8" else 1))
    assert load(repository, publish(repository, int8=network())).precision == chosen


def test_what_is_not_opened_is_not_read(repository: ModelRepository) -> None:
    version = publish(repository, int8=network())
    (repository.path(version) / INT8_FILE).write_bytes(b"torn")
    assert load(repository, version, precision="fp32").precision == "fp32"
    with pytest.raises(ContractError, match="should have SHA-256"):
        load(repository, version)


def test_only_what_may_be_served_has_to_be_right(repository: ModelRepository, caplog: pytest.LogCaptureFixture) -> None:
    """Golden images of float32 would take a start longer than all else."""
    images = random_images(4)
    wrong = golden(probabilities=reference(network(1), images), probabilities_int8=reference(network(), images))
    model = load(repository, publish(repository, model=network(slow=True), int8=network(), golden=wrong))
    assert model.precision == "int8"
    assert set(model.speeds) == {"int8", "fp32"}
    assert "left out" not in caplog.text


def test_fp16_is_held_to_its_own_answers(repository: ModelRepository) -> None:
    answers = reference(network(), random_images(4))
    rounded = golden(probabilities_fp16=answers + np.float32(0.02))
    assert load(repository, publish(repository, fp16=network(), golden=rounded), precision="fp16").precision == "fp16"
    off = golden(probabilities_fp16=answers + np.float32(0.06))
    with pytest.raises(ModelError, match=r"within 0.05 of those that it was judged by"):
        load(repository, publish(repository, fp16=network(), golden=off), precision="fp16")


def test_tensorrt_takes_the_next_precision_where_the_first_is_not_fit(repository: ModelRepository) -> None:
    off = golden(probabilities_fp16=reference(network(1), random_images(4)))
    version, device = publish(repository, fp16=network(), golden=off), Device(provider="tensorrt")
    assert load(repository, version, execution=device).precision == "fp32"
    assert device.opened == [("fp16", False), ("fp32", False)]


def test_provider_that_does_not_work_is_refused(repository: ModelRepository) -> None:
    with pytest.raises(ModelError, match="OpenVINO"):
        load(repository, publish(repository), execution=Execution("openvino"))
