import json
import logging
import mmap
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.execution import tensorrt
from app.execution.loading import load_model
from app.execution.provider import (
    EXECUTION_PROVIDERS,
    FALLBACKS,
    HALF_OPTIONS,
    IDENTITY_MODEL,
    NVIDIA,
    OPTIONS,
    TRIALS,
    Execution,
    Fault,
    ProviderError,
    choose_provider,
    find_fault,
    open_session,
    provider_options,
)
from app.execution.runner import DirectRunner
from tests.app.network import network, publish, random_images
from training.contract.repository import ModelRepository
from training.system.cpu import has_amx

HAS_OPENVINO = "OpenVINOExecutionProvider" in onnxruntime.get_available_providers()
NO_DRIVER = Fault("there is no NVIDIA driver")
NOT_BUILT = Fault("this build of ONNX Runtime has no such provider")
BROKEN = Fault("libcudnn.so.9 is missing", device_present=True)


@pytest.mark.parametrize(
    ("requested", "faults", "expected"),
    [
        ("auto", {"cuda": None, "openvino": None}, "cuda"),
        ("auto", {"cuda": NO_DRIVER, "openvino": NOT_BUILT}, "cpu"),
        ("auto", {"cuda": BROKEN, "openvino": NOT_BUILT}, "cpu"),
        ("auto", {"cuda": NOT_BUILT, "openvino": None}, "openvino"),
        ("cpu", {}, "cpu"),
        ("cuda", {"cuda": None}, "cuda"),
        ("tensorrt", {"tensorrt": None}, "tensorrt"),
        ("openvino", {"openvino": None}, "openvino"),
    ],
)
def test_choice(requested: str, faults: dict[str, Fault | None], expected: str) -> None:
    assert choose_provider(requested, faults.__getitem__) == expected


@pytest.mark.parametrize("requested", ["cuda", "tensorrt", "openvino"])
def test_asked_for_and_not_working_is_refused_with_the_reason(requested: str) -> None:
    with pytest.raises(ProviderError, match=f"RESNEXT_PROVIDER is {requested}.*libcudnn.so.9 is missing"):
        choose_provider(requested, lambda _: BROKEN)


@pytest.mark.parametrize(("fault", "level"), [(NO_DRIVER, logging.INFO), (BROKEN, logging.WARNING)])
def test_a_gpu_that_is_not_used_is_told_loudly(fault: Fault, level: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.execution.provider"):
        choose_provider("auto", {"cuda": fault, "openvino": NOT_BUILT}.__getitem__)
    told = [(record.levelno, record.message) for record in caplog.records]
    assert told == [
        (level, f"not serving on cuda: {fault.reason}"),
        (logging.INFO, f"not serving on openvino: {NOT_BUILT.reason}"),
    ]


def test_openvino_computes_in_float32_on_the_threads_it_is_given() -> None:
    options = provider_options("openvino", 3)
    assert options["device_type"] == "CPU"
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 3, "NUM_STREAMS": 1}
    assert json.loads(options["load_config"]) == {"CPU": properties}


@pytest.mark.skipif(not HAS_OPENVINO, reason="onnxruntime-openvino is not here: `make bench-openvino` proves it")
def test_openvino_answers_as_the_cpu_does(repository: ModelRepository) -> None:
    version = publish(repository)
    images = random_images(3)
    models = [load_model(repository, version, Execution(name), "fp32", "auto", 8) for name in ("openvino", "cpu")]
    np.testing.assert_allclose(models[0].run(images), models[1].run(images), atol=1e-5)
    assert models[0].padded(3) == 3


@pytest.mark.skipif(HAS_OPENVINO, reason="this build has OpenVINO")
def test_what_is_not_compiled_in_is_a_fault() -> None:
    fault = find_fault("openvino")
    assert fault is not None
    assert "has no OpenVINOExecutionProvider" in fault.reason
    assert "requirements/serve-openvino.txt brings one that has" in fault.reason


@pytest.mark.parametrize("amx", [False, True])
def test_who_has_amx_is_told_what_openvino_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert not has_amx(cpuinfo)
    cpuinfo.write_text(f"flags\t\t: fpu avx512_vnni {'amx_tile amx_int8' if amx else ''}\nbugs\t\t: none\n")
    assert has_amx(cpuinfo) == amx
    monkeypatch.setattr("app.execution.provider.has_amx", lambda: amx)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    fault = find_fault("openvino")
    assert fault
    assert ("twice as fast in INT8" in fault.reason) == amx


def test_probe_is_silent_and_true(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a GPU the real probe finds the fault before ONNX Runtime complains; with one, a session gets it."""
    name = choose_provider("auto")
    assert capfd.readouterr() == ("", "")
    open_session(IDENTITY_MODEL, name, 1)


def test_identity_model_is_what_onnx_writes() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="")
    assert model.SerializeToString() == IDENTITY_MODEL
    (answer,) = open_session(IDENTITY_MODEL, "cpu", 1).run(None, {"x": np.array([3], np.float32)})
    assert answer == [3]


def test_fall_back_is_noticed() -> None:
    """What find_fault spares the operator: ONNX Runtime complains in red, and gives a session on the CPU."""
    if find_fault("cuda") is None:
        pytest.skip("CUDA works here")
    with pytest.raises(ProviderError, match="asked for CUDAExecutionProvider and fell back to CPUExecutionProvider"):
        open_session(IDENTITY_MODEL, "cuda", 1)


def test_every_provider_has_its_rules() -> None:
    assert set(EXECUTION_PROVIDERS) == set(FALLBACKS) == set(TRIALS)
    assert all("fp32" in trial.precisions for trial in TRIALS.values())  # every version has it
    assert FALLBACKS["tensorrt"] == ("cuda", "cpu")
    assert OPTIONS["cuda"]["use_tf32"] == 0
    assert HALF_OPTIONS["use_tf32"] == 1
    assert OPTIONS["cuda"]["cudnn_conv_algo_search"] == "HEURISTIC"


def test_a_file_is_opened_without_buffers_or_padding_on_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(network().SerializeToString())
    runner = Execution("cpu", threads=1, cuda_graphs=True, engines=tmp_path).open(path, "fp32", (16, 16, 3), [1, 2])
    assert isinstance(runner, DirectRunner)
    assert runner.sizes is None
    assert list(tmp_path.iterdir()) == [path]


def test_onnxruntime_does_not_go_on_on_the_cpu_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """Its Python half would print the error, and open the session once more, on the CPU."""
    if find_fault("tensorrt") is None:
        pytest.skip("TensorRT works here")
    with pytest.raises(RuntimeError, match="install TensorRT libraries"):
        open_session(IDENTITY_MODEL, "tensorrt", 1)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", NVIDIA)
def test_the_options_are_those_of_this_build(name: str) -> None:
    """Nothing here can try them out, but each name lies in the library that reads it."""
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.exists():
        pytest.skip("this build has no GPU part")
    cuda = OPTIONS["cuda"] | HALF_OPTIONS | {"enable_cuda_graph": 1}
    options = {"cuda": cuda, "tensorrt": tensorrt.options("fp16", (8, 8, 3), [1])}
    names = [*options[name], *(tensorrt.cache_options(Path("x")) if name == "tensorrt" else ())]
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        assert [option for option in names if text.find(option.encode()) < 0] == []
