import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.api.open_inference.long_json import SHORT_BYTES
from app.api.open_inference.tensors import pack_bytes
from app.services import Services
from tests.app.api.open_inference.inputs import EXPECTED, IMAGES
from tests.app.conftest import Serve
from tests.app.network import LABELS, SIZE, encoded, network, publish, reference
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

INFER = "/v2/models/resnext50/infer"
Json = dict[str, Any]  # Any: JSON


def pixels(**more: object) -> Json:
    """Returns an input of all images as JSON."""
    return {"name": "image", "shape": [3, SIZE, SIZE, 3], "datatype": "UINT8", "data": IMAGES.tolist(), **more}


def texts(*images: bytes) -> Json:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data}


def binary(head: Json, *tensors: bytes) -> Json:
    """Returns httpx's arguments for a request whose tensors follow its JSON."""
    text = json.dumps(head).encode()
    return {
        "content": b"".join([text, *tensors]),
        "headers": {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"},
    }


def tensor(output: Json) -> NDArray[np.float32]:
    return np.array(output["data"], np.float32).reshape(output["shape"])


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    text: str = body["error"]
    return text


@pytest.mark.parametrize("path", [INFER, "/v2/models/resnext50/versions/1/infer"])
@pytest.mark.parametrize("data", [IMAGES.tolist(), IMAGES.ravel().tolist()], ids=["nested", "flat"])
async def test_pixels_as_json(serve: Serve, repository: ModelRepository, path: str, data: object) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post(path, json={"id": "seven", "inputs": [pixels(data=data)]})
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("resnext50", "1", "seven")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, len(LABELS)])
    np.testing.assert_allclose(tensor(output), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("nested", [True, False])
async def test_many_pixels_as_json(serve: Serve, repository: ModelRepository, nested: bool) -> None:
    publish(repository)
    images = np.concatenate([IMAGES] * 20)
    data = images.tolist() if nested else images.ravel().tolist()
    asked = {"inputs": [pixels(shape=list(images.shape), data=data)]}
    async with serve() as (client, _):
        answer = await client.post(INFER, json=asked)
        assert len(answer.request.content) > SHORT_BYTES
        np.testing.assert_allclose(tensor(answer.json()["outputs"][0]), [*EXPECTED] * 20, atol=1e-5)
        for wrong, said in ((data[:-1], "whole numbers"), ([*data, [1]], "ragged"), ([*data, "x"], "besides whole")):
            asked["inputs"][0]["data"] = wrong
            assert said in error_of(await client.post(INFER, json=asked), 400)


async def test_encoded_images_go_through_the_decode_of_predict(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    large = encoded(np.repeat(np.repeat(IMAGES[0], 5, 0), 3, 1), "JPEG")
    async with serve() as (client, _):
        predicted = await client.post("/predict?top_k=7", content=large)
        answer = await client.post(INFER, json={"inputs": [texts(encoded(IMAGES[1]), large)]})
        with_length = binary(
            {
                "inputs": [
                    {
                        "name": "image",
                        "shape": [2, 1],
                        "datatype": "BYTES",
                        "parameters": {"binary_data_size": len(pack_bytes([encoded(IMAGES[1]), large]))},
                    }
                ]
            },
            pack_bytes([encoded(IMAGES[1]), large]),
        )
        again = await client.post(INFER, **with_length)
    rows = tensor(answer.json()["outputs"][0])
    np.testing.assert_allclose(rows[0], EXPECTED[1], atol=1e-5)
    by_index = {p["index"]: p["probability"] for p in predicted.json()["results"][0]["predictions"]}
    np.testing.assert_array_equal(rows[1], np.array([by_index[i] for i in range(7)], np.float32))
    assert again.json() == answer.json()


async def test_binary_both_ways_and_several_outputs(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    size = {"binary_data_size": IMAGES.nbytes}
    outputs = [
        {"name": "probabilities"},
        {"name": "probabilities", "parameters": {"classification": 2}},
        {"name": "probabilities", "parameters": {"binary_data": False}},
    ]
    tensor_input = {"name": "image", "shape": list(IMAGES.shape), "datatype": "UINT8", "parameters": size}
    head = {"inputs": [tensor_input], "outputs": outputs, "parameters": {"binary_data_output": True}}
    async with serve() as (client, _):
        answer = await client.post(INFER, **binary(head, IMAGES.tobytes()))
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    raw, classes, plain = json.loads(answer.content[:end])["outputs"]
    split = end + raw["parameters"]["binary_data_size"]
    probabilities = np.frombuffer(answer.content[end:split], "<f4").reshape(raw["shape"])
    np.testing.assert_allclose(probabilities, EXPECTED, atol=1e-5)
    assert (classes["datatype"], classes["shape"]) == ("BYTES", [3, 2])
    best = EXPECTED.argsort(axis=1)[:, ::-1][:, :2]
    expected = [
        f"{row[i]:.6f}:{i}:{LABELS[i]}".encode() for row, order in zip(probabilities, best, strict=True) for i in order
    ]
    assert answer.content[split:] == pack_bytes(expected)
    assert classes["parameters"]["binary_data_size"] == len(answer.content) - split
    np.testing.assert_allclose(tensor(plain), EXPECTED, atol=1e-5)


async def test_null_is_as_good_as_absent(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    unset = {"id": None, "parameters": None, "outputs": None}
    async with serve() as (client, _):
        answer = await client.post(INFER, json=unset | {"inputs": [pixels(parameters=None)]})
    np.testing.assert_allclose(tensor(answer.json()["outputs"][0]), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("body", [IMAGES[0].tobytes(), encoded(IMAGES[0])], ids=["pixels", "PNG"])
async def test_a_raw_body_is_one_image(serve: Serve, repository: ModelRepository, body: bytes) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post(INFER, content=body, headers={"Inference-Header-Content-Length": "0"})
    end = int(answer.headers["inference-header-content-length"])
    np.testing.assert_allclose(np.frombuffer(answer.content[end:], "<f4"), EXPECTED[0], atol=1e-5)


async def test_a_raw_file_as_long_as_the_pixels_is_a_file(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    image = np.full((1, SIZE, SIZE, 3), (10, 200, 30), np.uint8)
    body = encoded(image[0]).ljust(image.nbytes, b"\0")
    async with serve() as (client, _):
        answer = await client.post(INFER, content=body, headers={"Inference-Header-Content-Length": "0"})
    end = int(answer.headers["inference-header-content-length"])
    expected = reference(network(0), image)[0]
    np.testing.assert_allclose(np.frombuffer(answer.content[end:], "<f4"), expected, atol=1e-5)


BAD_REQUESTS: dict[str, tuple[Json, str]] = {
    "no JSON": ({"content": b"{"}, "should be JSON"),
    "no inputs": ({"json": {}}, "inputs: Field required"),
    "another input": ({"json": {"inputs": [pixels(name="x")]}}, "unexpected inference input 'x'"),
    "two inputs": ({"json": {"inputs": [pixels(), pixels()]}}, "expected 1 input"),
    "another output": ({"json": {"inputs": [pixels()], "outputs": [{"name": "y"}]}}, "unexpected inference output 'y'"),
    "float": ({"json": {"inputs": [pixels(datatype="FP32")]}}, "its datatype is 'FP32'"),
    "shape": ({"json": {"inputs": [pixels(shape=[3, 3, SIZE, SIZE])]}}, "expected [n, 16, 16, 3] for UINT8"),
    "count": ({"json": {"inputs": [pixels(shape=[2, SIZE, SIZE, 3])]}}, "1536 whole numbers"),
    "negative": ({"json": {"inputs": [pixels(data=[-1] * 3 * SIZE * SIZE * 3)]}}, "from 0 to 255"),
    "over 255": ({"json": {"inputs": [pixels(data=[256] * 3 * SIZE * SIZE * 3)]}}, "from 0 to 255"),
    "fraction": ({"json": {"inputs": [pixels(data=[0.5] * 3 * SIZE * SIZE * 3)]}}, "from 0 to 255"),
    "no data": ({"json": {"inputs": [pixels(data=None)]}}, "from 0 to 255"),
    "inputs": ({"json": {"inputs": [pixels()] * 65}}, "inputs: List should have at most 64 items"),
    "dimensions": ({"json": {"inputs": [pixels(shape=[1] * 9)]}}, "shape: List should have at most 8 items"),
    "ragged": ({"json": {"inputs": [pixels(data=[[1], [1, 2]])]}}, "ragged"),
    "not base64": ({"json": {"inputs": [texts() | {"shape": [1], "data": ["\xff?"]}]}}, "base64"),
    "empty batch": ({"json": {"inputs": [texts()]}}, "expected [n] for BYTES, got [0]"),
    "not an image": ({"json": {"inputs": [texts(encoded(IMAGES[0]), b"no")]}}, "image 1 cannot be used, not_an_image"),
    "timeout": ({"json": {"inputs": [pixels()], "parameters": {"timeout": -1}}}, "'timeout' should be"),
    "header length": ({"content": b"{}", "headers": {"Inference-Header-Content-Length": "3"}}, "up to the body's 2"),
    "too little": (
        binary({"inputs": [pixels(data=None, parameters={"binary_data_size": 2304})]}, b"1234"),
        "4 bytes follow the JSON, 'binary_data_size' of input 'image' is 2304",
    ),
    "too much": (
        binary({"inputs": [pixels()]}, b"1234"),
        "4 bytes follow the JSON, 'binary_data_size' of input 'image' is None",
    ),
    "bytes": (
        binary({"inputs": [texts() | {"shape": [1], "parameters": {"binary_data_size": 6}}]}, b"\x09\0\0\0ab"),
        "6 bytes are left",
    ),
    "an image too many": ({"json": {"inputs": [pixels(shape=[4, SIZE, SIZE, 3])]}}, "3072 whole numbers"),
    "huge": ({"json": {"inputs": [pixels(shape=[10**30, SIZE, SIZE, 3])]}}, "inputs.0.shape.0: Input should be less"),
    "thousands of digits": (
        {"json": {"inputs": [pixels(shape=[10**4000, SIZE, SIZE, 3])]}},
        "inputs.0.shape.0: Input should be less",
    ),
    "no object": ({"json": [1]}, "the body: Input should be an object"),
    "NaN": ({"content": json.dumps({"inputs": [pixels(data=[float("nan")] * 2304)]})}, "from 0 to 255"),
    "an image cut off": (
        {"json": {"inputs": [texts(encoded(IMAGES[0])[:100])]}},
        "image 0 cannot be used, corrupt_image",
    ),
    "timeout of many digits": (
        {"json": {"inputs": [pixels()], "parameters": {"timeout": 10**400}}},
        "'timeout' should be",
    ),
    "outputs": (
        {"json": {"inputs": [pixels()], "outputs": [{"name": "probabilities"}] * 17}},
        "at most 16 outputs, got 17",
    ),
    "shared memory of an input": (
        {"json": {"inputs": [pixels(data=None, parameters={"shared_memory_region": "a"})]}},
        "shared memory is not supported",
    ),
    "shared memory": (
        {
            "json": {
                "inputs": [pixels()],
                "outputs": [{"name": "probabilities", "parameters": {"shared_memory_region": "a"}}],
            }
        },
        "shared memory is not supported",
    ),
}


@pytest.mark.parametrize(("request_", "said"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_a_bad_request_is_a_400_that_says_why(
    serve: Serve, repository: ModelRepository, request_: Json, said: str
) -> None:
    publish(repository)
    async with serve() as (client, _):
        assert said in error_of(await client.post(INFER, **request_), 400)


async def test_batch_is_bounded(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(max_files=2) as (client, _):
        assert "must be <= 2" in error_of(await client.post(INFER, json={"inputs": [pixels()]}), 400)


async def test_statuses_are_tritons(serve: Serve, repository: ModelRepository) -> None:
    async with serve(queue_size=64) as (client, services):
        assert "no version of 'resnext50' is active" in error_of(await client.get("/v2/health/ready"), 503)
        assert "no version" in error_of(await client.post(INFER, json={"inputs": [pixels()]}), 503)
        publish(repository)
        publish(repository, seed=1, activate=False)
        await services.serving.refresh()
        assert (await client.get("/v2/health/ready")).json()["ready"] is True
        for path in ("/v2/models/other", "/v2/models/resnext50/versions/3"):
            assert error_of(await client.get(path), 404)
            assert error_of(await client.get(f"{path}/ready"), 404)
            assert error_of(await client.post(f"{path}/infer", json={"inputs": [pixels()]}), 404)
        assert "version 2 is not at ready state" in error_of(await client.get("/v2/models/resnext50/versions/2"), 503)
        assert "should be a number" in error_of(await client.get("/v2/models/resnext50/versions/x"), 400)
        assert error_of(await client.get("/v2/nothing"), 404)
        assert error_of(await client.get(INFER), 405)
        packed = await client.post(INFER, content=b"", headers={"content-encoding": "gzip"})
        assert "content encoding" in error_of(packed, 415)
        with services.inference.admission.admit(62):
            full = await client.post(INFER, json={"inputs": [pixels()]})
        assert "there is no room for 3 more" in error_of(full, 503)
        assert full.headers["retry-after"] == "1"
        late = await client.post(INFER, json={"inputs": [texts(encoded(IMAGES[0]))], "parameters": {"timeout": 1}})
        assert "no answer within 1e-06 s" in error_of(late, 503)
    async with serve(max_upload=1000) as (client, _):
        assert "at most 1000 bytes" in error_of(await client.post(INFER, content=b" " * 1001), 413)


async def test_keys(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(api_keys="secret") as (client, _):
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert "API keys" in error_of(await client.get("/v2"), 401)
        assert (await client.get("/v2", headers={"x-api-key": "secret"})).status_code == 200


def counts(services: Services) -> tuple[int, int, int]:
    assert services.serving.live
    done = services.serving.live.statistics
    return done.success.count, done.fail.count, done.images


async def test_statistics_count_every_protocol(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(max_batch=2) as (client, services):
        await client.post(INFER, json={"inputs": [pixels()]})
        await client.post("/predict", files=[("file", ("a", encoded(IMAGES[0]))), ("file", ("b", b"no"))])
        assert counts(services) == (2, 0, 4)
        await client.post("/predict", content=b"no")
        await client.post(INFER, json={"inputs": [texts(encoded(IMAGES[0]), b"no")]})
        assert counts(services) == (2, 2, 4)
        for path in ("/v2/models/stats", "/v2/models/resnext50/stats", "/v2/models/resnext50/versions/1/stats"):
            (found,) = (await client.get(path)).json()["model_stats"]
        assert (found["name"], found["version"], found["inference_count"]) == ("resnext50", "1", 4)
        assert found["last_inference"] > 1_700_000_000_000
        assert found["execution_count"] == sum(b["compute_infer"]["count"] for b in found["batch_stats"])
        assert {b["batch_size"] for b in found["batch_stats"]} <= {1, 2}
        for parts in (found["inference_stats"], *found["batch_stats"]):  # perf_analyzer ends where they differ
            assert (
                parts["compute_input"]["count"]
                == parts["compute_infer"]["count"]
                == parts["compute_output"]["count"]
                > 0
            )
        assert found["inference_stats"]["success"]["ns"] > found["inference_stats"]["compute_infer"]["ns"] > 0


async def test_repository(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    publish(repository, seed=1, activate=False)
    load = "/v2/repository/models/resnext50/load"
    async with serve() as (client, services):
        index = (await client.post("/v2/repository/index")).json()
        assert [(m["version"], m["state"], m["reason"]) for m in index] == [
            ("1", "READY", ""),
            ("2", "UNAVAILABLE", "not live"),
        ]
        assert [m["version"] for m in (await client.post("/v2/repository/index", json={"ready": True})).json()] == ["1"]
        assert (await client.post(load, json={"parameters": {"version": 2}})).json() == {}
        assert repository.active() == 2
        assert services.serving.deployment().model.version == 2
        repository.activate(1)
        await client.post(load)
        assert services.serving.deployment().model.version == 1
        assert "has no version 3" in error_of(await client.post(load, json={"parameters": {"version": "3"}}), 404)
        assert "'config'" in error_of(await client.post(load, json={"parameters": {"config": "{}"}}), 400)
        assert error_of(await client.post("/v2/repository/models/other/load"), 404)
        (repository.folder / "2" / "model.onnx").write_bytes(b"")
        assert "cannot be served" in error_of(await client.post(load, json={"parameters": {"version": 2}}), 400)
        refused = await client.post("/v2/repository/models/resnext50/unload", json={"parameters": {}})
        assert "stays loaded" in error_of(refused, 501)
        assert services.ready


async def test_load_without_an_active_version_takes_the_newest(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, activate=False)
    publish(repository, activate=False)
    async with serve() as (client, services):
        assert (await client.post("/v2/repository/models/resnext50/load")).status_code == 200
        assert services.serving.deployment().model.version == 2
