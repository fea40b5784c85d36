"""The model repository as Triton reads it, with Triton's own protobuf classes."""

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from google.protobuf.json_format import ParseDict
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from tests.app.conftest import Serve
from tests.app.network import LABELS, encoded, publish, random_images
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

ELEMENTS = {"TYPE_UINT8": TensorProto.UINT8, "TYPE_FP32": TensorProto.FLOAT}


def config_of(repository: ModelRepository) -> model_config_pb2.ModelConfig:
    text = (repository.folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_config_agrees_with_the_graph(repository: ModelRepository) -> None:
    publish(repository)
    version = publish(repository, seed=1)
    config = config_of(repository)
    assert (config.name, config.backend) == (repository.folder.name, "onnxruntime")
    assert list(config.version_policy.specific.versions) == [version] == [repository.active()]
    assert config.HasField("dynamic_batching")
    graph = onnx.load(repository.path(version) / "model.onnx").graph
    for declared, tensors in ((config.input, graph.input), (config.output, graph.output)):
        assert [item.name for item in declared] == [tensor.name for tensor in tensors]
        for item, tensor in zip(declared, tensors, strict=True):
            kind = tensor.type.tensor_type
            assert ELEMENTS[model_config_pb2.DataType.Name(item.data_type)] == kind.elem_type
            batch, *dims = kind.shape.dim
            assert batch.dim_param  # what max_batch_size stands for
            assert list(item.dims) == [dim.dim_value for dim in dims]
    labels = (repository.folder / config.output[0].label_filename).read_text().splitlines()
    assert labels == LABELS
    assert len(labels) == np.prod(config.output[0].dims)


async def test_a_model_may_be_called_anything(serve: Serve, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path, "花 & 草 (1)")
    publish(repository)
    assert config_of(repository).name == repository.name
    assert "花" in (repository.folder / "config.pbtxt").read_text()  # not every reader of the format knows \\u
    async with serve(model=repository.name) as (client, _):
        path = f"/v2/models/{quote(repository.name)}"
        assert (await client.get(path)).json()["name"] == repository.name
        image = encoded(random_images(1)[0])
        raw = await client.post(f"{path}/infer", content=image, headers={"Inference-Header-Content-Length": "0"})
        head = json.loads(raw.content[: int(raw.headers["inference-header-content-length"])])
        assert head["model_name"] == repository.name
        assert (await client.post("/predict", content=image)).json()["model"]["name"] == repository.name
        assert (await client.get("/models")).json()["name"] == repository.name
        assert (await client.get("/metrics")).status_code == 200


async def test_the_service_tells_the_same_configuration(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        config = (await client.get("/v2/models/resnext50/config")).json()
    served = ParseDict(config, model_config_pb2.ModelConfig())
    assert served.platform == "onnxruntime_onnx"  # which Triton itself adds when it loads the model
    served.ClearField("platform")
    assert served == config_of(repository)
