"""Sessions on the provider that was asked for, with its options."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from app.execution.loading import load_model
from app.execution.probe import IDENTITY_MODEL, find_fault
from app.execution.runner import DirectRunner
from app.execution.session import Execution, ProviderError, open_session, provider_options
from tests.app.network import network, publish, random_images
from training.contract.repository import ModelRepository

HAS_OPENVINO = "OpenVINOExecutionProvider" in onnxruntime.get_available_providers()


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


def test_fall_back_is_noticed() -> None:
    """ONNX Runtime complains in red and gives a session on the CPU; find_fault spares the operator this."""
    if find_fault("cuda") is None:
        pytest.skip("CUDA works here")
    with pytest.raises(ProviderError, match="asked for CUDAExecutionProvider and fell back to CPUExecutionProvider"):
        open_session(IDENTITY_MODEL, "cuda", 1)


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
