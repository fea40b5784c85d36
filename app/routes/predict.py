"""POST /predict: images in, the most likely classes out."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from app.deadline import deadline
from app.deployment import Deployment
from app.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    MalformedBody,
    NoFile,
    NoModel,
    NoValidImage,
    QueueFull,
    TooManyFiles,
    Unauthorized,
    UnsupportedBody,
    UploadTooLarge,
    WrongField,
    documented,
)
from app.model import Model
from app.observation import CURRENT
from app.schemas import Classified, ImageProblem, ModelRef, Prediction, PredictResponse, Rejected
from app.services import Services, services_of
from app.uploads import FIELD, Upload, read_uploads
from training.images import ImageError, decode

PATH = "/predict"
DEFAULT_TOP_K = 5

router = APIRouter(tags=["predict"])

_IMAGE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "description": f"One or many parts named `{FIELD}`, or one image as the raw body under any other content type.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "items": _IMAGE, "minItems": 1}},
            }
        },
        "image/*": {"schema": _IMAGE},
        "application/octet-stream": {"schema": _IMAGE},
    },
}
_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": "classes to answer with, at most; more than there are gives all",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": DEFAULT_TOP_K},
}


@router.post(
    PATH,
    summary="Classify images",
    response_model=PredictResponse,
    openapi_extra={"requestBody": _BODY, "parameters": [_TOP_K]},
    responses={
        200: {
            "headers": {
                "Server-Timing": {
                    "description": "ms of decode, queue and inference, each the longest of the request's images",
                    "schema": {"type": "string"},
                }
            }
        },
        **documented(
            *(MalformedBody, Unauthorized, TooManyFiles, UploadTooLarge, UnsupportedBody, InvalidRequest, NoFile),
            *(WrongField, NoValidImage, InferenceFailed, NoModel, QueueFull, DeadlineExceeded),
        ),
    },
)
async def predict(request: Request) -> Response:
    """Results come in upload order. A part that is no usable image gets an `error` and harms no other; 422 when none is
    usable."""
    services = services_of(request.app)
    top_k = _top_k(request)
    services.admission.check()  # this and the next before the upload is read: a refusal should be cheap
    services.serving.deployment()
    uploads = await read_uploads(request, services.settings.max_files)
    with services.admission.admit(len(uploads)), services.serving.deployment().lease() as live:
        async with deadline(request, services.settings.request_timeout):
            outcomes = await asyncio.gather(
                *(_classify(upload, live, services) for upload in uploads), return_exceptions=True
            )
    return _respond(live.model, uploads, outcomes, top_k)


def _top_k(request: Request) -> int:
    """By hand, not FastAPI's: the route is on the shortcut. Raises InvalidRequest."""
    text = request.query_params.get("top_k")
    if text is None:
        return DEFAULT_TOP_K
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise InvalidRequest(f"query.top_k: should be a whole number from 1 to 999999999, got {text[:80]!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One image's probabilities, float32 [classes], and where its time went, in seconds."""

    probabilities: NDArray[np.float32]
    decode: float
    queue: float
    inference: float


async def _classify(upload: Upload, live: Deployment, services: Services) -> _Outcome:
    """Raises ImageError, InferenceFailed."""
    submitted = time.perf_counter()
    image, decode_seconds = await asyncio.get_running_loop().run_in_executor(
        services.decoders, _decode, upload, live.model, services.settings.max_pixels
    )
    waited = time.perf_counter() - submitted - decode_seconds
    if request := CURRENT.get():
        request.decoded(waited, decode_seconds)
    answer = await live.classify(image)
    return _Outcome(answer.probabilities, decode_seconds, waited + answer.queue_seconds, answer.inference_seconds)


def _decode(upload: Upload, model: Model, max_pixels: int) -> tuple[NDArray[np.uint8], float]:
    started = time.perf_counter()
    image = decode(upload.data, model.preprocessing, max_pixels)
    return image, time.perf_counter() - started


def _respond(model: Model, uploads: list[Upload], outcomes: list[_Outcome | BaseException], top_k: int) -> Response:
    results: list[Classified | Rejected] = []
    done: list[_Outcome] = []
    for upload, outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, ImageError):
            problem = ImageProblem(code=outcome.code, message=outcome.message)
            results.append(Rejected(filename=upload.filename, error=problem))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            done.append(outcome)
            predictions = best_classes(outcome.probabilities, model.labels, top_k)
            results.append(Classified(filename=upload.filename, predictions=predictions))
    if not done:
        raise NoValidImage(
            f"none of the {len(results)} images can be used; `results` says why",
            results=[r.model_dump() for r in results],
        )
    body = PredictResponse(model=ModelRef(name=model.name, version=model.version), results=results)
    timing = ", ".join(
        f"{stage};dur={1e3 * max(getattr(o, stage) for o in done):.2f}" for stage in ("decode", "queue", "inference")
    )
    return Response(body.model_dump_json(), media_type="application/json", headers={"Server-Timing": timing})


def best_classes(probabilities: NDArray[np.float32], labels: list[str], k: int) -> list[Prediction]:
    """The k most likely classes, best first, equals by index."""
    # a stable sort of 1000 floats takes 30 us; argpartition takes 10 and orders equals at will
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return [Prediction(label=labels[i], index=i, probability=float(probabilities[i])) for i in order]
