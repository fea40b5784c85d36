"""Which provider is chosen, and what is said of one that does not work."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.execution.probe import IDENTITY_MODEL, Fault, choose_provider, find_fault
from app.execution.provider import Provider
from app.execution.session import ProviderError, open_session
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
def test_choice(
    requested: Provider | Literal["auto"], faults: dict[Provider, Fault | None], expected: Provider
) -> None:
    assert choose_provider(requested, faults.__getitem__) == expected


@pytest.mark.parametrize("requested", ["cuda", "tensorrt", "openvino"])
def test_asked_for_and_not_working_is_refused_with_the_reason(requested: Provider) -> None:
    with pytest.raises(ProviderError, match=f"RESNEXT_PROVIDER is {requested}.*libcudnn.so.9 is missing"):
        choose_provider(requested, lambda _: BROKEN)


@pytest.mark.parametrize(("fault", "level"), [(NO_DRIVER, logging.INFO), (BROKEN, logging.WARNING)])
def test_a_gpu_that_is_not_used_is_told_loudly(fault: Fault, level: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.execution.probe"):
        choose_provider("auto", {"cuda": fault, "openvino": NOT_BUILT}.__getitem__)
    told = [(record.levelno, record.message) for record in caplog.records]
    assert told == [
        (level, f"not serving on cuda: {fault.reason}"),
        (logging.INFO, f"not serving on openvino: {NOT_BUILT.reason}"),
    ]


@pytest.mark.skipif(HAS_OPENVINO, reason="this build has OpenVINO")
def test_what_is_not_compiled_in_is_a_fault() -> None:
    fault = find_fault("openvino")
    assert fault is not None
    assert "has no OpenVINOExecutionProvider" in fault.reason
    assert "requirements/serve-openvino.txt brings one that has" in fault.reason


@pytest.mark.parametrize("amx", [False, True])
def test_who_has_amx_is_told_what_openvino_gives(tmp_path: Path, amx: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert not has_amx(cpuinfo)
    cpuinfo.write_text(f"flags\t\t: fpu avx512_vnni {'amx_tile amx_int8' if amx else ''}\nbugs\t\t: none\n")
    assert has_amx(cpuinfo) == amx
    fault = find_fault("openvino", cpuinfo=cpuinfo, available=["CPUExecutionProvider"])
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
