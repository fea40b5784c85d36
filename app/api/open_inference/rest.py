"""/v2: the Open Inference Protocol over REST, with Triton's extensions."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from app.api.deadline import deadline
from app.api.open_inference import protocol
from app.api.open_inference.tensors import HEADER_LENGTH, InferRequest, read_request, write_response
from app.api.problems import documented
from app.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    MalformedBody,
    ModelNotFound,
    NoModel,
    NotSupported,
    NoValidImage,
    QueueFull,
    Unauthorized,
    UnsupportedBody,
    UploadTooLarge,
    VersionNotFound,
    VersionNotLive,
    VersionUnusable,
)
from app.inference.deployment import Deployment
from app.services import ServicesDep, services_of

# above it a body is read in a thread: 224 x 224 pixels as JSON take 4 ms flat and 12 ms nested, 4 KB 0.06 ms
INLINE_BYTES = 65_536

router = APIRouter(prefix="/v2", tags=["inference protocol"])
open_router = APIRouter(prefix="/v2/health", tags=["inference protocol"])  # asks for no key, as /health does not

Json = dict[str, Any]  # Any: JSON
Responses = dict[int | str, dict[str, Any]]  # Any: FastAPI's own type

_ABSENT = documented(
    Unauthorized, ModelNotFound, VersionNotFound, VersionNotLive, NoModel, InvalidRequest, protocol=True
)
_BODY = {
    "required": True,
    "description": "An inference request as JSON, then binary tensors where `Inference-Header-Content-Length` says "
    "how long the JSON is; with a 0 there, one image alone.",
    "content": {
        "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
_ANSWERS: Responses = {
    200: {"description": "an inference response", "content": {"application/json": {"schema": {"type": "object"}}}},
    **documented(
        *(MalformedBody, InvalidRequest, NoValidImage, UnsupportedBody, Unauthorized, UploadTooLarge),
        *(ModelNotFound, VersionNotFound, VersionNotLive, NoModel, QueueFull, DeadlineExceeded, InferenceFailed),
        protocol=True,
    ),
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "only the live one is loaded",
    "schema": {"type": "string"},
}


def _of_model(
    method: str, action: str, summary: str, responses: Responses, **extra: object
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # Any: whatever FastAPI takes for an endpoint
    """Two routes to one endpoint: of the model, and of a version of it."""

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        for path, parameters in (("", [_NAME]), ("/versions/{version}", [_NAME, _VERSION])):
            router.add_api_route(
                f"/models/{{name}}{path}{action}",
                endpoint,
                methods=[method],
                summary=f"{summary} of a version" if path else summary,
                responses=responses,
                openapi_extra={"parameters": parameters, **extra},
            )
        return endpoint

    return add


async def _live(request: Request) -> Deployment:
    """What the path names, if it is live."""
    serving = services_of(request.app).serving
    return await protocol.live_as(serving, request.path_params.get("name"), request.path_params.get("version"))


LiveDep = Annotated[Deployment, Depends(_live)]


def path_of(model: str) -> str:
    """Where that model's requests go."""
    return f"/v2/models/{model}/infer"


@open_router.get("/live", summary="Server live")
async def server_live() -> Json:
    """200 while the process answers at all."""
    return {"live": True}


@open_router.get("/ready", summary="Server ready", responses=documented(NoModel, protocol=True))
async def server_ready(services: ServicesDep) -> Json:
    """200 when a version is verified and warm; 503 before that and while draining."""
    services.require_ready()
    return {"live": True, "ready": True}


@router.get("", summary="Server metadata", responses=documented(Unauthorized, protocol=True))
async def server_metadata() -> Json:
    """Name, version and extensions."""
    return protocol.server_metadata()


@router.get("/models/stats", summary="Statistics of all models", responses=documented(Unauthorized, protocol=True))
async def all_statistics(services: ServicesDep) -> Json:
    """Of the live version; none before there is one."""
    live = services.serving.live
    return {"model_stats": [protocol.model_statistics(live)] if live else []}


@_of_model("GET", "", "Model metadata", _ABSENT)
async def model_metadata(live: LiveDep) -> Json:
    """Inputs and outputs, their types and shapes."""
    return protocol.model_metadata(live.model)


@_of_model("GET", "/ready", "Model ready", _ABSENT)
async def model_ready(live: LiveDep, services: ServicesDep) -> Json:
    """200 when it is live."""
    services.require_ready()
    return {"name": live.model.name, "ready": True}


@_of_model("GET", "/config", "Model configuration", _ABSENT)
async def model_config(live: LiveDep, services: ServicesDep) -> Json:
    """Triton's ModelConfig."""
    return protocol.model_config(live.model, services.settings.max_files)


@_of_model("GET", "/stats", "Model statistics", _ABSENT)
async def model_statistics(live: LiveDep) -> Json:
    """Since it went live, over every protocol."""
    return {"model_stats": [protocol.model_statistics(live)]}


@_of_model("POST", "/infer", "Inference", _ANSWERS, requestBody=_BODY)
async def infer(request: Request) -> Response:
    """`image` is UINT8 [n, height, width, 3], or BYTES [n] of encoded images, in JSON as base64.

    The served model's own path comes here without FastAPI, and names nothing.
    """
    services = services_of(request.app)
    services.inference.admission.check()  # this and the next before the body is read: a refusal should be cheap
    await _live(request)
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedBody(f"the body should come as it is, its content encoding is {encoding[:40]!r}")
    body = await request.body()
    with (await _live(request)).lease() as live:
        asked = await _parse(request, body, live.model.shape)
        until = deadline(request, protocol.seconds_of(asked, services))
        outputs = await protocol.model_infer(asked, live, services, until)
        content, json_length = write_response(live.model.name, live.model.version, asked, outputs)
    if json_length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(json_length)})


_Body = TypeVar("_Body", bound=BaseModel)


class IndexRequest(BaseModel):
    """$repository_index_request."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


class ControlRequest(BaseModel):
    """$repository_load_request and $repository_unload_request."""

    parameters: Json = {}


@router.post("/repository/index", summary="Repository index", responses=_ABSENT)
async def repository_index(request: Request, services: ServicesDep) -> list[dict[str, str]]:
    """Every version with its state; with `{"ready": true}` the live one alone."""
    return await protocol.repository_index(services, (await _read(request, IndexRequest)).ready)


@router.post(
    "/repository/models/{name}/load",
    summary="Make a version live",
    openapi_extra={"parameters": [_NAME]},
    responses=_ABSENT | documented(VersionUnusable, InvalidRequest, protocol=True),
)
async def repository_load(request: Request, services: ServicesDep) -> Json:
    """As POST /models/{version}/activate: the parameter `version`, else what ACTIVE names, else the newest."""
    await protocol.load(
        services.serving, request.path_params["name"], (await _read(request, ControlRequest)).parameters
    )
    return {}


@router.post(
    "/repository/models/{name}/unload",
    summary="Refused: one model is served",
    openapi_extra={"parameters": [_NAME]},
    responses=documented(Unauthorized, ModelNotFound, NotSupported, protocol=True),
)
async def repository_unload(request: Request, services: ServicesDep) -> Json:
    """The one model stays loaded."""
    protocol.unload(services.serving, request.path_params["name"])
    return {}


async def _parse(request: Request, body: bytes, shape: tuple[int, int, int]) -> InferRequest:
    header_length = request.headers.get(HEADER_LENGTH)
    if len(body) <= INLINE_BYTES or header_length is not None:  # binary tensors are not copied
        return read_request(body, header_length, shape)
    decoders = services_of(request.app).inference.decoders
    return await asyncio.get_running_loop().run_in_executor(decoders, read_request, body, header_length, shape)


async def _read(request: Request, kind: type[_Body]) -> _Body:
    """The body, which may be empty, whatever it is called. Raises InvalidRequest."""
    try:
        return kind.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
