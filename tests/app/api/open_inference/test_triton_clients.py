"""The service as NVIDIA's own clients for Triton see it."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from app.api.open_inference.grpc_service import INLINE_NUMBERS
from tests.app.api.open_inference.inputs import EXPECTED, IMAGES, MODEL, files, pixels
from tests.app.conftest import Serve
from tests.app.network import LABELS, SIZE, encoded, network, publish, random_images, repository_at
from tests.process import answers, free_port, run, service, until
from training.contract.repository import ModelRepository

MODULES = [tritonclient.http, tritonclient.grpc]
Client = Any  # tritonclient has no types


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, str]]:
    """Yields the address for each client module, with version 1 live and version 2 beside it."""
    root: Path = tmp_path_factory.mktemp("models")
    repository = repository_at(root)
    publish(repository)
    publish(repository, seed=1, activate=False)
    grpc_port = free_port()
    with service(root, provider="cpu", grpc_port=str(grpc_port)) as (_, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready", 200))
        http, calls = f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
        yield {
            tritonclient.http: http,
            tritonclient.http.aio: http,
            tritonclient.grpc: calls,
            tritonclient.grpc.aio: calls,
        }


@pytest.fixture(params=MODULES, ids=["http", "grpc"])
def module(request: pytest.FixtureRequest) -> Any:  # Any: a module
    return request.param


@pytest.fixture
def client(ports: dict[Any, str], module: Any) -> Iterator[Client]:
    with module.InferenceServerClient(ports[module]) as client:
        yield client


def test_health_and_metadata(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    kind = {} if isinstance(client, tritonclient.http.InferenceServerClient) else {"as_json": True}
    server = client.get_server_metadata(**kind)
    assert server["name"] == "resnext-service"
    assert "classification" in server["extensions"]
    for version in ("", "1"):
        model = client.get_model_metadata(MODEL, version, **kind)
        assert model["versions"] == ["1"]
        assert model["inputs"][0]["name"] == "image"
        assert [int(n) for n in model["inputs"][0]["shape"]] == [-1, SIZE, SIZE, 3]
        config = client.get_model_config(MODEL, version, **kind)
        config = config.get("config", config)
        assert (config["name"], config["max_batch_size"]) == (MODEL, 64)
        assert [int(n) for n in config["output"][0]["dims"]] == [len(LABELS)]


def test_pixels(client: Client, module: Any) -> None:
    result = client.infer(MODEL, [pixels(module)], request_id="seven")
    np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=1e-5)
    response = result.get_response()
    identifier, version = (
        (response["id"], response["model_version"])
        if isinstance(response, dict)
        else (response.id, response.model_version)
    )
    assert (identifier, version) == ("seven", "1")


def test_encoded_images(client: Client, module: Any) -> None:
    result = client.infer(MODEL, [files(module, encoded(IMAGES[1]), encoded(IMAGES[0], "BMP"))], model_version="1")
    np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED[[1, 0]], atol=1e-5)


def test_classification(client: Client, module: Any) -> None:
    asked = [module.InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer(MODEL, [pixels(module)], outputs=asked).as_numpy("probabilities")
    assert classes.shape == (3, 2)
    value, index, label = classes[0][0].decode().split(":")
    assert (int(index), label) == (EXPECTED[0].argmax(), LABELS[EXPECTED[0].argmax()])
    assert float(value) == pytest.approx(EXPECTED[0].max(), abs=1e-5)


def test_json_both_ways(ports: dict[Any, str]) -> None:
    tensor = tritonclient.http.InferInput("image", list(IMAGES.shape), "UINT8")
    tensor.set_data_from_numpy(IMAGES, binary_data=False)
    asked = [tritonclient.http.InferRequestedOutput("probabilities", binary_data=False)]
    with tritonclient.http.InferenceServerClient(ports[tritonclient.http]) as client:
        result = client.infer(MODEL, [tensor], outputs=asked)
    np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=1e-5)


def test_concurrent_requests(ports: dict[Any, str]) -> None:
    with tritonclient.http.InferenceServerClient(ports[tritonclient.http], concurrency=8) as client:
        asked = [client.async_infer(MODEL, [pixels(tritonclient.http, IMAGES[i % 3][None])]) for i in range(24)]
        for i, pending in enumerate(asked):
            result = pending.get_result().as_numpy("probabilities")
            np.testing.assert_allclose(result, EXPECTED[[i % 3]], atol=1e-5)


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio], ids=["http", "grpc"])
def test_asyncio_clients(ports: dict[Any, str], module: Any) -> None:
    async def ask() -> list[Any]:
        async with module.InferenceServerClient(ports[module]) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready(MODEL)
            return await asyncio.gather(*(client.infer(MODEL, [pixels(module)]) for _ in range(8)))

    for result in asyncio.run(ask()):
        np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=1e-5)


def test_errors(client: Client, module: Any) -> None:
    def fails(said: str, status: str, **how: Any) -> None:
        asked = {"model_name": MODEL, "inputs": [pixels(module)]} | how
        with pytest.raises(InferenceServerException, match=said) as error:
            client.infer(**asked)
        assert status in (error.value.status() or "")

    http = module is tritonclient.http
    fails("unknown model", "404" if http else "NOT_FOUND", model_name="other")
    fails("has no version 9", "404" if http else "NOT_FOUND", model_version="9")
    fails("version 2 is not at ready state", "503" if http else "UNAVAILABLE", model_version="2")
    wrong = [pixels(module, random_images(1).transpose(0, 3, 1, 2).copy())]
    fails("unexpected shape", "400" if http else "INVALID_ARGUMENT", inputs=wrong)
    fails("image 0 cannot be used", "400" if http else "INVALID_ARGUMENT", inputs=[files(module, b"no image")])
    fails(
        "no answer within 1e-06 s",
        "503" if http else "UNAVAILABLE",
        inputs=[files(module, encoded(IMAGES[0]))],
        timeout=1,
    )


def test_statistics(client: Client, module: Any) -> None:
    client.infer(MODEL, [pixels(module)])
    kind = {} if module is tritonclient.http else {"as_json": True}
    (before,) = client.get_inference_statistics(MODEL, **kind)["model_stats"]
    client.infer(MODEL, [pixels(module)])
    (after,) = client.get_inference_statistics(**kind)["model_stats"]
    assert int(after["inference_count"]) - int(before["inference_count"]) == 3
    success = [int(found["inference_stats"]["success"]["count"]) for found in (before, after)]
    assert success[1] - success[0] == 1


def test_repository(client: Client, module: Any) -> None:
    kind = {} if module is tritonclient.http else {"as_json": True}
    index = client.get_model_repository_index(**kind)
    states = [(m["version"], m["state"]) for m in (index["models"] if isinstance(index, dict) else index)]
    assert states == [("1", "READY"), ("2", "UNAVAILABLE")]
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL, "1")
    with pytest.raises(InferenceServerException, match="'config'"):
        client.load_model(MODEL, config="{}")
    with pytest.raises(InferenceServerException, match="stays loaded"):
        client.unload_model(MODEL)


def test_contents_in_place_of_raw_bytes(ports: dict[Any, str]) -> None:
    """Stubs in other languages send contents; no client of NVIDIA's does."""
    numbers = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=IMAGES.shape)
    numbers.contents.uint_contents.extend(IMAGES.ravel().tolist())
    texts = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    texts.contents.bytes_contents.append(encoded(IMAGES[2]))
    with grpc.insecure_channel(ports[tritonclient.grpc]) as channel:
        call = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        for item, expected in ((numbers, EXPECTED), (texts, EXPECTED[2:])):
            answer = call(service_pb2.ModelInferRequest(model_name=MODEL, inputs=[item]))
            row = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
            np.testing.assert_allclose(row, expected, atol=1e-5)
        numbers.contents.uint_contents[0] = 256
        with pytest.raises(grpc.RpcError, match="from 0 to 255"):
            call(service_pb2.ModelInferRequest(model_name=MODEL, inputs=[numbers]))


def edited(change: Callable[[Any], object]) -> Any:
    """Returns a good request with one change."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="image", datatype="UINT8", shape=IMAGES.shape)
    request.raw_input_contents.append(IMAGES.tobytes())
    change(request)
    return request


BAD_CALLS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no input": (lambda r: r.ClearField("inputs"), "expected 1 input"),
    "no contents": (lambda r: r.ClearField("raw_input_contents"), "has 2304 bytes, got 0"),
    "two raw contents": (lambda r: r.raw_input_contents.append(b""), "one raw content each, got 2"),
    "cut off": (lambda r: r.raw_input_contents.__setitem__(0, b"1234"), "has 2304 bytes, got 4"),
    "datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP32"), "its datatype is 'FP32'"),
    "negative": (lambda r: r.inputs[0].shape.__setitem__(0, -3), "unexpected shape"),
    "huge": (lambda r: r.inputs[0].shape.__setitem__(0, 2**62), "bytes, got 2304"),
    "long": (lambda r: r.inputs[0].shape.extend([1] * 100_000), "unexpected shape"),
    "long name": (lambda r: setattr(r.inputs[0], "name", "é" * 100_000), "unexpected inference input"),
    "outputs": (lambda r: [r.outputs.add(name="probabilities") for _ in range(17)], "at most 16 outputs"),
    "timeout": (lambda r: setattr(r.parameters["timeout"], "string_param", "1"), "'timeout' should be"),
    "shared memory": (
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "a"),
        "shared memory is not supported",
    ),
}


@pytest.mark.parametrize(("change", "said"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_bad_call_is_an_invalid_argument_that_says_why(
    ports: dict[Any, str], change: Callable[[Any], object], said: str
) -> None:
    with grpc.insecure_channel(ports[tritonclient.grpc]) as channel:
        call = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        with pytest.raises(grpc.RpcError) as error:
            call(edited(change))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in error.value.details()


def test_many_numbers_are_read_too(ports: dict[Any, str]) -> None:
    """There are more of them than the event loop itself reads."""
    many = np.repeat(IMAGES, 10, axis=0)
    assert many.size > INLINE_NUMBERS
    request = edited(lambda r: r.ClearField("raw_input_contents"))
    request.inputs[0].shape[0] = len(many)
    request.inputs[0].contents.uint_contents.extend(many.ravel().tolist())
    with grpc.insecure_channel(ports[tritonclient.grpc]) as channel:
        answer = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    row = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
    np.testing.assert_allclose(row, np.repeat(EXPECTED, 10, axis=0), atol=1e-5)


def test_what_is_not_there_says_so(ports: dict[Any, str]) -> None:
    with tritonclient.grpc.InferenceServerClient(ports[tritonclient.grpc]) as client:
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
            client.get_system_shared_memory_status()
        assert client.is_model_ready(MODEL, "2") is False
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            client.is_model_ready("other")
    with tritonclient.http.InferenceServerClient(ports[tritonclient.http]) as client:
        assert client.is_model_ready("other") is False
        with pytest.raises(InferenceServerException, match="404"):
            client.get_system_shared_memory_status()


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_frees_its_places(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, model=network(slow=True))
    port = free_port()
    async with serve(grpc_port=port, max_batch=1) as (_, services):
        live = services.serving.deployment()
        async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
            many = np.repeat(IMAGES, 20, axis=0)
            call = asyncio.create_task(client.infer(MODEL, [pixels(tritonclient.grpc.aio, many)]))
            while not services.inference.admission.depth:  # noqa: ASYNC110  nothing sets an Event
                await asyncio.sleep(0)
            call.cancel()
            while services.inference.admission.depth:  # noqa: ASYNC110  the server hears of it in its own time
                await asyncio.sleep(0)
            result = await client.infer(MODEL, [pixels(tritonclient.grpc.aio)])
            np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=1e-5)
        assert (live.statistics.success.count, live.statistics.fail.count, live.statistics.images) == (1, 1, 3)
        assert sum(run.count for run in live.statistics.runs.values()) < 60


@pytest.mark.anyio
async def test_a_full_queue_says_when_to_come_back(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    port = free_port()
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="image", datatype="UINT8", shape=IMAGES.shape)
    request.raw_input_contents.append(IMAGES.tobytes())
    async with (
        serve(grpc_port=port, queue_size=64) as (_, services),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as at,
    ):
        call = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(at).ModelInfer
        with services.inference.admission.admit(62), pytest.raises(grpc.aio.AioRpcError) as error:
            await call(request)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(error.value.trailing_metadata())["retry-after"] == "1"
        assert (await call(request)).model_version == "1"


@pytest.mark.anyio
async def test_a_fault_is_logged_and_kept_from_the_client(
    serve: Serve, repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    publish(repository)
    port = free_port()
    async with serve(grpc_port=port) as (_, services):
        services.serving.deployment().batcher.close()  # a submit to it raises RuntimeError
        async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
            with pytest.raises(InferenceServerException, match="its log says why"):
                await client.infer(MODEL, [pixels(tritonclient.grpc.aio)])
    assert "submit to a closed Batcher" in caplog.text


def test_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = {"models": str(tmp_path), "datasets": f"{tmp_path}/datasets", "state": f"{tmp_path}/state"}
        process = run(**places, provider="cpu", port=str(free_port()), grpc_port=str(port))
        _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert str(port) in errors


def test_keys_and_the_end(tmp_path: Path) -> None:
    repository: ModelRepository = repository_at(tmp_path)
    publish(repository)
    grpc_port = free_port()
    with service(tmp_path, provider="cpu", grpc_port=str(grpc_port), api_keys="secret") as (process, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready", 200))
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match="API keys"):
                client.infer(MODEL, [pixels(tritonclient.grpc)])
            result = client.infer(MODEL, [pixels(tritonclient.grpc)], headers={"authorization": "Bearer secret"})
            np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=1e-5)
        process.terminate()
        assert process.wait(30) == 0
