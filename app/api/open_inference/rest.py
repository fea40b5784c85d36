"""/v2: the Open Inference Protocol over REST, with Triton's extensions."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from app.api.deadline import deadline
from app.api.numbers import whole_number
from app.api.open_inference import protocol
from app.api.open_inference.long_json import SHORT_BYTES
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
    RunTimedOut,
    Stuck,
    Unauthorized,
    UnsupportedBody,
    UploadsFull,
    UploadTooLarge,
    VersionNotFound,
    VersionNotLive,
    VersionUnusable,
)
from app.inference.deployment import Deployment
from app.services import ServicesDep, services_of

# longer JSON is read in a thread: 224 x 224 pixels take some 10 ms, 4 KB 0.06 ms
INLINE_BYTES = SHORT_BYTES

router = APIRouter(prefix="/v2", tags=["inference protocol"])
open_router = APIRouter(prefix="/v2/health", tags=["inference protocol"])  # needs no key, like /health

Json = dict[str, Any]  # Any: JSON
Responses = dict[int | str, dict[str, Any]]  # Any: FastAPI's own type

_ABSENT = documented(
    Unauthorized, ModelNotFound, VersionNotFound, VersionNotLive, NoModel, InvalidRequest, protocol=True
)
_BODY = {
    "required": True,
    "description": "An inference request as JSON. Binary tensors may follow; `Inference-Header-Content-Length` is then "
    "the JSON's length in bytes. With a length of 0 the body is one image and nothing else.",
    "content": {
        "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
_ANSWERS: Responses = {
    200: {"description": "an inference response", "content": {"application/json": {"schema": {"type": "object"}}}},
    **documented(
        *(MalformedBody, InvalidRequest, NoValidImage, UnsupportedBody, Unauthorized, UploadTooLarge),
        *(ModelNotFound, VersionNotFound, VersionNotLive, NoModel, QueueFull, UploadsFull, DeadlineExceeded),
        *(InferenceFailed, RunTimedOut),
        protocol=True,
    ),
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "number of a version; only the live version is loaded",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}


def _of_model(
    method: str, action: str, summary: str, responses: Responses, **extra: object
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # Any: whatever FastAPI takes for an endpoint
    """Adds two routes to one endpoint: of the model, and of one of its versions."""

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
    """Returns the deployment that the path names, if it is live."""
    serving = services_of(request.app).serving
    return await protocol.live_as(serving, request.path_params.get("name"), request.path_params.get("version"))


LiveDep = Annotated[Deployment, Depends(_live)]


def path_of(model: str) -> str:
    """Returns the path of that model's inference requests."""
    return f"/v2/models/{model}/infer"


@open_router.get("/live", summary="Server live", responses=documented(Stuck, protocol=True))
async def server_live(services: ServicesDep) -> Json:
    """Answers as /health/live does."""
    services.require_alive()
    return {"live": True}


@open_router.get("/ready", summary="Server ready", responses=documented(NoModel, Stuck, protocol=True))
async def server_ready(services: ServicesDep) -> Json:
    """Answers 200 when a version is verified and warm; 503 before that and while the service drains."""
    services.require_ready()
    return {"live": True, "ready": True}


@router.get("", summary="Server metadata", responses=documented(Unauthorized, protocol=True))
async def server_metadata() -> Json:
    """Returns the server's name, its version and the extensions that it supports."""
    return protocol.server_metadata()


@router.get("/models/stats", summary="Statistics of all models", responses=documented(Unauthorized, protocol=True))
async def all_statistics(services: ServicesDep) -> Json:
    """Returns the statistics of the live version; an empty list before a version is live."""
    live = services.serving.live
    return {"model_stats": [protocol.model_statistics(live)] if live else []}


@_of_model("GET", "", "Model metadata", _ABSENT)
async def model_metadata(live: LiveDep) -> Json:
    """Returns the names, datatypes and shapes of the model's input and output."""
    return protocol.model_metadata(live.model)


@_of_model("GET", "/ready", "Model ready", _ABSENT)
async def model_ready(live: LiveDep, services: ServicesDep) -> Json:
    """Answers 200 when the model, or this version of it, is live."""
    services.require_ready()
    return {"name": live.model.name, "ready": True}


@_of_model("GET", "/config", "Model configuration", _ABSENT)
async def model_config(live: LiveDep, services: ServicesDep) -> Json:
    """Returns the model's configuration in Triton's form."""
    return protocol.model_config(live.model, services.settings.max_files)


@_of_model("GET", "/stats", "Model statistics", _ABSENT)
async def model_statistics(live: LiveDep) -> Json:
    """Returns what was counted since the version went live, over every protocol."""
    return {"model_stats": [protocol.model_statistics(live)]}


@_of_model("POST", "/infer", "Inference", _ANSWERS, requestBody=_BODY)
async def infer(request: Request) -> Response:
    """Classifies a tensor of images.

    The input `image` is UINT8 [n, height, width, 3], RGB pixels, or BYTES [n], encoded images, which JSON
    carries as base64.
    """
    # the served model's own path comes here past FastAPI's router, without path parameters
    services = services_of(request.app)
    services.inference.admission.check()  # this and the next before the body is read: a refusal should be cheap
    await _live(request)
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedBody(f"the body should be sent without content encoding, it came with {encoding[:40]!r}")
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
    """The protocol's $repository_index_request."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


class ControlRequest(BaseModel):
    """The protocol's $repository_load_request and $repository_unload_request."""

    parameters: Json = {}


@router.post(
    "/repository/index", summary="Repository index", responses=_ABSENT | documented(UploadTooLarge, protocol=True)
)
async def repository_index(request: Request, services: ServicesDep) -> list[dict[str, str]]:
    """Lists every version with its state; with `{"ready": true}` the live version alone."""
    return await protocol.repository_index(services, (await _read(request, IndexRequest)).ready)


@router.post(
    "/repository/models/{name}/load",
    summary="Make a version live",
    openapi_extra={"parameters": [_NAME]},
    responses=_ABSENT | documented(VersionUnusable, InvalidRequest, UploadTooLarge, protocol=True),
)
async def repository_load(request: Request, services: ServicesDep) -> Json:
    """Makes a version live, as POST /models/{version}/activate does.

    The version is the parameter `version`, else the active one, else the newest.
    """
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
    """Answers 501: the only model stays loaded."""
    protocol.unload(services.serving, request.path_params["name"])
    return {}


async def _parse(request: Request, body: bytes, shape: tuple[int, int, int]) -> InferRequest:
    header_length = request.headers.get(HEADER_LENGTH)
    json_length = len(body) if header_length is None else whole_number(header_length) or 0
    if json_length <= INLINE_BYTES:  # binary tensors behind the JSON are not copied
        return read_request(body, header_length, shape)
    decoders = services_of(request.app).inference.decoders
    return await asyncio.get_running_loop().run_in_executor(decoders, read_request, body, header_length, shape)


async def _read(request: Request, kind: type[_Body]) -> _Body:
    """Reads the body as JSON, whatever its content type; an empty body is `{}`. Raises InvalidRequest."""
    try:
        return kind.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
