"""The model repository as Triton reads it, by Triton's own protobuf classes."""

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from google.protobuf.json_format import ParseDict
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from tests.app.conftest import Serve
from tests.app.network import LABELS, publish
from training.contract import ModelRepository

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


async def test_the_service_tells_the_same_configuration(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        told = (await client.get("/v2/models/resnext50/config")).json()
    served = ParseDict(told, model_config_pb2.ModelConfig())
    assert served.platform == "onnxruntime_onnx"  # which Triton itself adds when it loads the model
    served.ClearField("platform")
    assert served == config_of(repository)
