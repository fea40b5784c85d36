"""Turns errors into answers: RFC 9457 problems, and under /v2 the Open Inference Protocol's own form."""

import functools
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.api.access.granted import shown
from app.api.complaints import complaints_of
from app.api.examples import ERRORS
from app.errors import (
    CLIENT_CLOSED_REQUEST,
    DOMAIN,
    ClientError,
    ClientGone,
    InvalidRequest,
    MalformedBody,
    ServiceError,
    Unauthorized,
    UnsupportedBody,
    UploadTooLarge,
    status_and_code,
)
from training.datasets.store import DatasetDamaged
from training.errors import StorageUnavailable
from training.jobs.job import JobDamaged, JobNotFound, JobsUnavailable

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

# the errors that routes of one kind may answer with, for `documented`
BODY_ERRORS = (Unauthorized, MalformedBody, UnsupportedBody, UploadTooLarge, InvalidRequest)
DATASET_ERRORS = (Unauthorized, InvalidRequest, DatasetDamaged, StorageUnavailable)
JOB_ERRORS = (Unauthorized, JobNotFound, JobDamaged, InvalidRequest, JobsUnavailable)

# the statuses that Triton or HTTP itself uses too; every other becomes one of these
PROTOCOL_STATUSES = {400, 401, 403, 404, 405, 408, 413, 415, 429, 431, CLIENT_CLOSED_REQUEST, 500, 501, 503}
PROTOCOL_PATH = "/v2"


def protocol_status(status: int) -> int:
    """Returns the status that Triton would use: 503 for a deadline, and 400 for anything wrong with a request."""
    if status in PROTOCOL_STATUSES:
        return status
    return 400 if status < 500 else 503


def problem(
    path: str,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> Response:
    """Makes an `application/problem+json` response (RFC 9457). `code` is stable, `detail` is for people.

    On a path of the Open Inference Protocol the body is `{"error": detail}`.
    """
    if path == PROTOCOL_PATH or path.startswith(f"{PROTOCOL_PATH}/"):
        return JSONResponse({"error": detail}, protocol_status(status), headers)
    body = _problem_body(status, code, detail, extra)
    return JSONResponse(body, status, headers, PROBLEM_TYPE)


def answer(error: ClientError, path: str) -> Response:
    """Returns an error as a response. Middleware calls it, since it runs outside the handlers."""
    status, code = status_and_code(type(error))
    if isinstance(error, ServiceError):
        return problem(path, status, code, shown(error), error.headers, error.extra)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s", error)
    return problem(path, status, code, str(error))


def documented(
    *errors: type[ClientError], protocol: bool = False
) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type
    """Returns the `responses=` of a route that may answer with these errors. `protocol`: in the form for /v2."""
    by_status: dict[int, list[tuple[int, str]]] = {}
    for status, code in map(status_and_code, errors):
        by_status.setdefault(protocol_status(status) if protocol else status, []).append((status, code))
    media_type, schema = ("application/json", _ERROR_SCHEMA) if protocol else (PROBLEM_TYPE, _PROBLEM_SCHEMA)
    return {
        status: {
            "description": ", ".join(f"`{code}`" for _, code in found),
            "content": {
                media_type: {"schema": schema, "examples": {code: _example(own, code, protocol) for own, code in found}}
            },
        }
        for status, found in by_status.items()
    }


def _example(status: int, code: str, protocol: bool) -> dict[str, object]:
    detail = ERRORS.get(code, code)
    return {"value": {"error": detail} if protocol else _problem_body(status, code, detail)}


def _problem_body(status: int, code: str, detail: str, extra: Mapping[str, object] | None = None) -> dict[str, object]:
    title = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **(extra or {})}


_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "An error as in RFC 9457. It may have further members.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened, what was expected and what came, for people"},
        "code": {"type": "string", "description": "name of the error, stable, for programs"},
    },
}


def install_error_handlers(app: FastAPI, routes: Sequence[Route] = ()) -> None:
    """Answers every error that leaves a route, the router itself or the middleware added so far with a problem.

    `routes` are those whose methods a 405 names: the router itself names those of the first that has the path.

    Middleware that is added later can add headers to these answers. Starlette itself handles Exception outside of all
    middleware, where the answer has no CORS headers and a page on another origin could not read it.
    """
    app.add_exception_handler(ServiceError, _client_error)
    for error in DOMAIN:
        app.add_exception_handler(error, _client_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, functools.partial(_http_error, routes))
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_middleware(ServerErrorMiddleware, handler=_unhandled)
    app.add_exception_handler(Exception, _unhandled)  # for errors of middleware that is added later


async def _client_error(request: Request, error: Exception) -> Response:
    return answer(cast(ClientError, error), request.scope["path"])


async def _invalid_request(request: Request, error: Exception) -> Response:
    complaints, left_out = complaints_of(cast(RequestValidationError, error))
    detail = "; ".join(map(str, complaints))
    extra: dict[str, object] = {"errors": [complaint._asdict() for complaint in complaints]}
    if left_out:
        detail += f"; and {left_out} more"
        extra["errors_left_out"] = left_out
    return problem(request.scope["path"], 422, InvalidRequest.code, detail, extra=extra)


async def _http_error(routes: Sequence[Route], request: Request, error: Exception) -> Response:
    """Answers the router's own 404 and 405, and its 400 for a body that no JSON parser accepts."""
    error = cast(HTTPException, error)
    status = HTTPStatus(error.status_code)
    path: str = request.scope["path"]
    if status == HTTPStatus.BAD_REQUEST:
        detail = f"the body should be JSON in UTF-8; {error.__cause__ or error.detail}"
        return problem(path, status, MalformedBody.code, detail)
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
        methods |= {"HEAD"} if "GET" in methods else set()  # by the middleware
        headers["Allow"] = ", ".join(sorted(methods)) or headers.get("Allow", "")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(path, status, status.name.lower(), detail, headers)


async def _client_gone(request: Request, __: Exception) -> Response:
    return answer(ClientGone("the client left before its upload was complete"), request.scope["path"])


async def _unhandled(request: Request, __: Exception) -> Response:
    """Answers an unexpected exception. Starlette raises it again after the answer, so that the server logs it."""
    detail = "the service failed on this request; its log says why"
    return problem(request.scope["path"], 500, ServiceError.code, detail)
