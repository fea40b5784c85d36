import logging

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.provider import IDENTITY_MODEL, Fault, ProviderError, choose_provider, find_fault, open_session

NO_DRIVER = Fault("there is no NVIDIA driver")
BROKEN = Fault("libcudnn.so.9 is missing", device_present=True)


@pytest.mark.parametrize(
    ("requested", "faults", "expected"),
    [
        ("auto", {"cuda": None}, "cuda"),
        ("auto", {"cuda": NO_DRIVER}, "cpu"),
        ("auto", {"cuda": BROKEN}, "cpu"),
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
    with caplog.at_level(logging.INFO, "app.provider"):
        choose_provider("auto", lambda _: fault)
    assert [(record.levelno, fault.reason in record.message) for record in caplog.records] == [(level, True)]


def test_what_is_not_compiled_in_is_a_fault() -> None:
    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has OpenVINO")
    fault = find_fault("openvino")
    assert fault is not None
    assert "has no OpenVINOExecutionProvider" in fault.reason


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
    if choose_provider("auto") != "cpu":
        pytest.skip("CUDA works here")
    with pytest.raises(ProviderError, match="asked for CUDAExecutionProvider and fell back to CPUExecutionProvider"):
        open_session(IDENTITY_MODEL, "cuda", 1)
