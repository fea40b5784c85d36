"""POST /predict: images in, the most likely classes out."""

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from app.api.deadline import deadline
from app.api.examples import PREDICTED
from app.api.numbers import whole_number
from app.api.problems import documented
from app.api.schemas import Classified, ImageProblem, ModelRef, Prediction, PredictResponse, Rejected
from app.api.uploads import FIELD, Upload, read_form
from app.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    MalformedBody,
    NoFile,
    NoModel,
    NoValidImage,
    QueueFull,
    RunTimedOut,
    TooManyFiles,
    Unauthorized,
    UnsupportedBody,
    UploadsFull,
    UploadTooLarge,
    WrongField,
)
from app.execution.model import Model
from app.inference.batcher import Answer
from app.inference.infer import most_likely
from app.observability.timing import Timing
from app.services import services_of
from training.images.decode import ImageError

PATH = "/predict"
DEFAULT_TOP_K = 5

router = APIRouter(tags=["predict"])

_IMAGE = {"type": "string", "format": "binary"}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": DEFAULT_TOP_K}
_BODY = {
    "required": True,
    "description": f"One or many files in parts named `{FIELD}`, or one image as the raw body with any other content "
    "type. Text fields other than `top_k` are ignored.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "items": _IMAGE, "minItems": 1}, "top_k": _COUNT},
                "additionalProperties": False,  # text would be ignored, and a file refused
            }
        },
        "image/*": {"schema": _IMAGE},
        "application/octet-stream": {"schema": _IMAGE},
    },
}
_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": "most classes in each result; more than there are gives all. Overrides `top_k` in the form",
    "schema": _COUNT,
}


@router.post(
    PATH,
    summary="Classify images",
    response_model=PredictResponse,
    openapi_extra={"requestBody": _BODY, "parameters": [_TOP_K]},
    responses={
        200: {
            "content": {"application/json": {"example": PREDICTED}},
            "headers": {
                "Server-Timing": {
                    "description": "milliseconds of decode, queue and inference, each the longest of an image",
                    "schema": {"type": "string"},
                }
            },
        },
        **documented(
            *(MalformedBody, Unauthorized, TooManyFiles, UploadTooLarge, UnsupportedBody, InvalidRequest, NoFile),
            *(
                WrongField,
                NoValidImage,
                InferenceFailed,
                NoModel,
                QueueFull,
                UploadsFull,
                DeadlineExceeded,
                RunTimedOut,
            ),
        ),
    },
)
async def predict(request: Request) -> Response:
    """Classifies one or many images. The results are in upload order. An image that cannot be used gets an `error` and
    the others are classified all the same; the answer is 422 when none can be used."""
    services = services_of(request.app)
    top_k = _top_k("query", request.query_params.get("top_k"))
    services.inference.admission.check()  # this and the next before the upload is read: a refusal should be cheap
    services.serving.deployment()
    form = await read_form(request, services.settings.max_files)
    # a number field that was left empty comes as ""
    top_k = top_k or _top_k("form", form.fields.get("top_k") or None) or DEFAULT_TOP_K
    with services.serving.deployment().lease() as live:
        images = [upload.data for upload in form.uploads]
        until = deadline(request, services.settings.request_timeout)
        outcomes = await services.inference.infer(images, live, until, partial=True)
    return _respond(live.model, form.uploads, outcomes, top_k)


def _top_k(place: str, text: str | None) -> int | None:
    """Parses `top_k` by hand, since the shortcut leads this route past FastAPI. Raises InvalidRequest."""
    if text is None:
        return None
    if number := whole_number(text):
        return number
    raise InvalidRequest(f"{place}.top_k: should be a whole number from 1 to 999999999, got {text[:80]!r}")


def _respond(model: Model, uploads: list[Upload], outcomes: list[Answer | ImageError], top_k: int) -> Response:
    results: list[Classified | Rejected] = []
    done: list[Timing] = []
    for upload, outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, ImageError):
            problem = ImageProblem(code=outcome.code, message=outcome.message)
            results.append(Rejected(filename=upload.filename, error=problem))
        else:
            done.append(outcome.timing)
            predictions = best_classes(outcome.probabilities, model.labels, top_k)
            results.append(Classified(filename=upload.filename, predictions=predictions))
    if not done:
        those = "the image" if len(results) == 1 else f"the {len(results)} images"
        raise NoValidImage(f"{those} cannot be used; `results` says why", results=[r.model_dump() for r in results])
    body = PredictResponse(model=ModelRef(name=model.name, version=model.version), results=results)
    longest = Timing.longest(done)
    stages = (("decode", longest.decode), ("queue", longest.queue), ("inference", longest.infer))
    timing = ", ".join(f"{name};dur={1e3 * seconds:.2f}" for name, seconds in stages)
    return Response(body.model_dump_json(), media_type="application/json", headers={"Server-Timing": timing})


def best_classes(probabilities: NDArray[np.float32], labels: list[str], k: int) -> list[Prediction]:
    """Returns the k most likely classes, best first; equally likely classes are in order of their index."""
    order = most_likely(probabilities, k)
    return [Prediction(label=labels[i], index=i, probability=float(probabilities[i])) for i in order]
