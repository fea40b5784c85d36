"""The two services offered over gRPC: the Open Inference Protocol, by Triton's stubs, and gRPC's health protocol."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from app.api.deadline import time_limit
from app.api.open_inference import protocol
from app.api.open_inference.tensors import (
    Images,
    InferRequest,
    Output,
    Requested,
    check_shape,
    named,
    of_datatype,
    pixels,
    refuse_shared_memory,
    requested,
    timeout_of,
    unpack_bytes,
)
from app.errors import InvalidRequest, NoModel, UnknownService, VersionNotLive
from app.services import Services
from training.contract.manifest import INPUT_NAME, OUTPUT_NAME

# Kubernetes asks one port and tells its probes apart by a service's name: these two names are from its documentation
LIVENESS = "liveness"
READINESS = ("", "readiness", "inference.GRPCInferenceService")

# more are read in a thread: as numbers, 64 images of 224 x 224 pixels take 0.4 s
INLINE_NUMBERS = 16_384

Message = Any  # protobuf's generated classes have no types


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # it has no types
    """The calls that the service offers. The base class answers the rest of Triton's calls with UNIMPLEMENTED."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._serving = services.serving

    async def ServerLive(self, _: Message, __: object) -> Message:
        """Answers as /health/live does."""
        return pb.ServerLiveResponse(live=self._services.alive)

    async def ServerReady(self, _: Message, __: object) -> Message:
        """Whether a version is verified and warm and the service does not drain."""
        return pb.ServerReadyResponse(ready=self._services.ready)

    async def ModelReady(self, request: Message, _: object) -> Message:
        """Whether the version asked for is live."""
        try:
            await protocol.live_as(self._serving, request.name, request.version)
        except (NoModel, VersionNotLive):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._services.ready)

    async def ServerMetadata(self, _: Message, __: object) -> Message:
        """Returns the server's name, its version and the extensions that it supports."""
        return pb.ServerMetadataResponse(**protocol.server_metadata())

    async def ModelMetadata(self, request: Message, _: object) -> Message:
        """Returns the names, datatypes and shapes of the model's input and output."""
        live = await protocol.live_as(self._serving, request.name, request.version)
        return ParseDict(protocol.model_metadata(live.model), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Message, _: object) -> Message:
        """Returns the model's configuration in Triton's form."""
        live = await protocol.live_as(self._serving, request.name, request.version)
        config = protocol.model_config(live.model, self._services.settings.max_files)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Message, _: object) -> Message:
        """Returns what was counted since the version went live, over every protocol."""
        if not request.name and not self._serving.live:
            return pb.ModelStatisticsResponse()
        live = await protocol.live_as(self._serving, request.name, request.version)
        return ParseDict({"model_stats": [protocol.model_statistics(live)]}, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Message, _: object) -> Message:
        """Lists every version with its state, or the live version alone."""
        index = await protocol.repository_index(self._services, request.ready)
        return ParseDict({"models": index}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Message, _: object) -> Message:
        """Makes a version live."""
        await protocol.load(self._serving, request.model_name, _parameters(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Message, _: object) -> Message:
        """Refuses: the only model stays loaded."""
        protocol.unload(self._serving, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Message, _: object) -> Message:
        """Classifies images, as POST /v2/models/{name}/infer does. Outputs are raw contents; a client may cancel."""
        with (await protocol.live_as(self._serving, request.model_name, request.model_version)).lease() as live:
            asked = await self._parse(request, live.model.shape)
            outputs = await protocol.model_infer(
                asked, live, self._services, time_limit(protocol.seconds_of(asked, self._services))
            )
            return _response(live.model.name, live.model.version, asked.id, outputs)

    async def _parse(self, request: Message, shape: tuple[int, int, int]) -> InferRequest:
        if not any(len(item.contents.uint_contents) > INLINE_NUMBERS for item in request.inputs):
            return _read(request, shape)
        return await asyncio.get_running_loop().run_in_executor(
            self._services.inference.decoders, _read, request, shape
        )


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """The service grpc.health.v1, which Kubernetes' gRPC probe and grpc_health_probe call.

    Watch is UNIMPLEMENTED: the protocol has its clients go on without it, and a stream that stays open would delay the
    drain.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def Check(self, request: Message, _: object) -> Message:
        """Answers for READINESS like /health/ready, and for LIVENESS like /health/live. Raises UnknownService."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        if request.service != LIVENESS and request.service not in READINESS:
            raise UnknownService(f"there is no service {request.service[:40]!r}; there are {[LIVENESS, *READINESS]}")
        good = self._services.alive if request.service == LIVENESS else self._services.ready
        return health_pb2.HealthCheckResponse(status=status.SERVING if good else status.NOT_SERVING)


def _parameters(parameters: Message) -> dict[str, Any]:  # Any: the values of a oneof
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }


def _read(request: Message, shape: tuple[int, int, int]) -> InferRequest:
    """Reads a request's message. Raises InvalidRequest."""
    if not request.inputs:
        raise InvalidRequest(f"expected 1 input, {INPUT_NAME!r}, got none")
    if request.raw_input_contents and len(request.raw_input_contents) != len(request.inputs):
        raise InvalidRequest(
            f"{len(request.inputs)} inputs should have one raw content each, got {len(request.raw_input_contents)}"
        )
    (item,) = named(request.inputs, INPUT_NAME, "input")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    outputs = [requested(_parameters(output.parameters)) for output in named(request.outputs, OUTPUT_NAME, "output")]
    timeout = timeout_of(_parameters(request.parameters).get("timeout"))
    return InferRequest(_images(item, raw, shape), outputs or [Requested()], request.id, timeout)


def _images(item: Message, raw: bytes | None, image: tuple[int, int, int]) -> Images:
    of_datatype(item.datatype)
    refuse_shared_memory(item.parameters)
    check_shape(item.shape, image if item.datatype == "UINT8" else None)
    if raw is not None:
        return pixels(raw, item.shape) if item.datatype == "UINT8" else unpack_bytes(raw, item.shape[0])
    if item.datatype == "UINT8":
        numbers = _numbers(item.contents.uint_contents)
        if numbers.size and numbers.max() > 255:
            raise InvalidRequest(f"the contents of input {INPUT_NAME!r} should be numbers from 0 to 255")
        return pixels(numbers.astype(np.uint8).tobytes(), item.shape)
    contents: Sequence[bytes] = item.contents.bytes_contents
    if len(contents) != item.shape[0]:
        raise InvalidRequest(f"input {INPUT_NAME!r} should be {item.shape[0]} byte strings, got {len(contents)}")
    return list(contents)


def _numbers(contents: Sequence[int]) -> NDArray[np.uint32]:
    """Copies numbers in short steps: each holds the interpreter's lock, and the event loop needs it meanwhile."""
    numbers = np.empty(len(contents), np.uint32)
    for start in range(0, len(contents), INLINE_NUMBERS):
        numbers[start : start + INLINE_NUMBERS] = contents[start : start + INLINE_NUMBERS]
    return numbers


def _response(name: str, version: int, id: str, outputs: Sequence[Output]) -> Message:
    return pb.ModelInferResponse(
        model_name=name,
        model_version=str(version),
        id=id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=OUTPUT_NAME, datatype=output.datatype, shape=output.shape)
            for output in outputs
        ],
        raw_output_contents=[output.raw() for output in outputs],
    )
