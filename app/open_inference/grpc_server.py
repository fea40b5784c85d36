"""inference.GRPCInferenceService: the Open Inference Protocol over gRPC, with Triton's stubs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from app.errors import DeadlineExceeded, InvalidRequest, NoModel, ServiceError, VersionNotLive, protocol_status
from app.ingress.auth import Keys
from app.open_inference import protocol
from app.open_inference.tensors import (
    Images,
    InferRequest,
    Output,
    Requested,
    check_shape,
    named,
    of_datatype,
    pixels,
    requested,
    timeout_of,
    unpack_bytes,
)
from app.services import Services
from training.contract import INPUT_NAME, OUTPUT_NAME

log = logging.getLogger(__name__)

OPEN_CALLS = ("/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady")
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

Message = Any  # protobuf's generated classes have no types


class GrpcServer:
    """Serves from entering the context to leaving it, which gives calls in flight the drain's time."""

    def __init__(self, services: Services, keys: Keys) -> None:
        self._services = services
        self._keys = keys

    async def __aenter__(self) -> Self:
        settings = self._services.settings
        self._server = grpc.aio.server(
            interceptors=[Errors(self._keys)],
            options=[
                ("grpc.max_receive_message_length", int(settings.max_upload)),
                ("grpc.max_send_message_length", -1),
                # several processes share the port; one alone must not take it from another service
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceService(self._services), self._server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._server.add_insecure_port(f"{host}:{settings.grpc_port}")
        await self._server.start()
        log.info("gRPC on %s:%d", host, settings.grpc_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(self._services.settings.drain_timeout)


class Errors(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Lets calls through that carry a key, and ends one that fails with the status of its error."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:  # Any: grpcio has no types for these
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def call(request: Message, context: grpc.aio.ServicerContext) -> Message:
            try:
                if details.method not in OPEN_CALLS:
                    self._keys.admit(dict(details.invocation_metadata))
                return await handler.unary_unary(request, context)
            except ServiceError as error:
                code = CODES.get(protocol_status(error.status), grpc.StatusCode.INTERNAL)
                trailing = [(name.lower(), value) for name, value in (error.headers or {}).items()]
                await context.abort(code, error.detail, tuple(trailing))
            except NotImplementedError:  # the base class' answer to what is not here
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{details.method} is not supported")
            except grpc.aio.AbortError:
                raise
            except Exception:  # gRPC would tell the client its text
                log.exception("%s failed", details.method)
                await context.abort(grpc.StatusCode.INTERNAL, "the service failed on this request; its log says why")

        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # it has no types
    """What the service has; the rest of Triton's calls is UNIMPLEMENTED by the base class."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._serving = services.serving

    async def ServerLive(self, _: Message, __: object) -> Message:
        """True while the process answers at all."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Message, __: object) -> Message:
        """Whether a version is verified and warm, and the service is not about to end."""
        return pb.ServerReadyResponse(ready=self._serving.ready)

    async def ModelReady(self, request: Message, _: object) -> Message:
        """Whether that version is the live one."""
        try:
            await protocol.live_as(self._serving, request.name, request.version)
        except (NoModel, VersionNotLive):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._serving.ready)

    async def ServerMetadata(self, _: Message, __: object) -> Message:
        """Name, version and extensions."""
        return pb.ServerMetadataResponse(**protocol.server_metadata())

    async def ModelMetadata(self, request: Message, _: object) -> Message:
        """Inputs and outputs, their types and shapes."""
        live = await protocol.live_as(self._serving, request.name, request.version)
        return ParseDict(protocol.model_metadata(live.model), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Message, _: object) -> Message:
        """Triton's ModelConfig."""
        live = await protocol.live_as(self._serving, request.name, request.version)
        config = protocol.model_config(live.model, self._services.settings.max_files)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Message, _: object) -> Message:
        """Since the version went live, over every protocol."""
        if not request.name and not self._serving.live:
            return pb.ModelStatisticsResponse()
        live = await protocol.live_as(self._serving, request.name, request.version)
        return ParseDict({"model_stats": [protocol.model_statistics(live)]}, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Message, _: object) -> Message:
        """Every version with its state."""
        index = await protocol.repository_index(self._serving, request.ready)
        return ParseDict({"models": index}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Message, _: object) -> Message:
        """Makes a version live."""
        await protocol.load(self._serving, request.model_name, _parameters(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Message, _: object) -> Message:
        """Refused: one model is served."""
        protocol.unload(self._serving, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Message, _: object) -> Message:
        """As POST /v2/models/{name}/infer; outputs come as raw contents. A client that leaves cancels the call."""
        with (await protocol.live_as(self._serving, request.model_name, request.model_version)).lease() as live:
            asked = _read(request, live.model.shape)
            outputs = await protocol.model_infer(
                asked, live, self._services, _deadline(protocol.seconds_of(asked, self._services))
            )
            return _response(live.model.name, live.model.version, asked.id, outputs)


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after that time. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"no answer within {seconds:g} s; the work that was still queued is dropped") from None


def _parameters(parameters: Message) -> dict[str, Any]:  # Any: what its oneof holds
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }


def _read(request: Message, shape: tuple[int, int, int]) -> InferRequest:
    """Raises InvalidRequest."""
    if not request.inputs:
        raise InvalidRequest(f"expected 1 input, {INPUT_NAME!r}, got none")
    if request.raw_input_contents and len(request.raw_input_contents) != len(request.inputs):
        raise InvalidRequest(
            f"{len(request.inputs)} inputs should have as many raw contents, got {len(request.raw_input_contents)}"
        )
    (item,) = named(request.inputs, INPUT_NAME, "input")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    outputs = [requested(_parameters(output.parameters)) for output in named(request.outputs, OUTPUT_NAME, "output")]
    timeout = timeout_of(_parameters(request.parameters).get("timeout"))
    return InferRequest(_images(item, raw, shape), outputs or [Requested()], request.id, timeout)


def _images(item: Message, raw: bytes | None, image: tuple[int, int, int]) -> Images:
    of_datatype(item.datatype)
    check_shape(item.shape, image if item.datatype == "UINT8" else None)
    if raw is not None:
        return pixels(raw, item.shape) if item.datatype == "UINT8" else unpack_bytes(raw, item.shape[0])
    if item.datatype == "UINT8":
        numbers = np.asarray(item.contents.uint_contents, np.uint32)
        if numbers.size and numbers.max() > 255:
            raise InvalidRequest(f"the contents of input {INPUT_NAME!r} should be numbers from 0 to 255")
        return pixels(numbers.astype(np.uint8).tobytes(), item.shape)
    contents: Sequence[bytes] = item.contents.bytes_contents
    if len(contents) != item.shape[0]:
        raise InvalidRequest(f"input {INPUT_NAME!r} should be {item.shape[0]} byte strings, got {len(contents)}")
    return list(contents)


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
