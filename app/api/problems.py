"""Errors as answers: RFC 9457 problems, and under /v2 the Open Inference Protocol's own form. The one place for it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from app.api.complaints import complaints_of
from app.api.examples import ERRORS
from app.errors import CLIENT_CLOSED_REQUEST, ClientGone, InvalidRequest, MalformedBody, ServiceError

PROBLEM_TYPE = "application/problem+json"
# what of our statuses Triton has too, and those of HTTP itself; the rest becomes one of these
PROTOCOL_STATUSES = {400, 401, 404, 405, 413, 415, CLIENT_CLOSED_REQUEST, 500, 501, 503}
PROTOCOL_PATH = "/v2"


def protocol_status(status: int) -> int:
    """The status in Triton's map: a deadline is 503 there, and whatever is wrong with a request 400."""
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
    """An `application/problem+json` response (RFC 9457). `code` is stable, `detail` is for people.

    On a path of the Open Inference Protocol it is `{"error": detail}`.
    """
    if path == PROTOCOL_PATH or path.startswith(f"{PROTOCOL_PATH}/"):
        return JSONResponse({"error": detail}, protocol_status(status), headers)
    body = _problem_body(status, code, detail, extra)
    return JSONResponse(body, status, headers, PROBLEM_TYPE)


def answer(error: ServiceError, path: str) -> Response:
    """For middleware, which runs outside the handlers."""
    return problem(path, error.status, error.code, error.detail, error.headers, error.extra)


def documented(
    *errors: type[ServiceError], protocol: bool = False
) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type
    """The `responses=` of a route that may end in these errors; of one of the Open Inference `protocol`'s."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    for error in errors:
        by_status.setdefault(protocol_status(error.status) if protocol else error.status, []).append(error)
    media_type, schema = ("application/json", _ERROR_SCHEMA) if protocol else (PROBLEM_TYPE, _PROBLEM_SCHEMA)
    return {
        status: {
            "description": ", ".join(f"`{error.code}`" for error in errors),
            "content": {media_type: {"schema": schema, "examples": {e.code: _example(e, protocol) for e in errors}}},
        }
        for status, errors in by_status.items()
    }


def _example(error: type[ServiceError], protocol: bool) -> dict[str, object]:
    detail = ERRORS.get(error.code, error.code)
    return {"value": {"error": detail} if protocol else _problem_body(error.status, error.code, detail)}


def _problem_body(status: int, code: str, detail: str, extra: Mapping[str, object] | None = None) -> dict[str, object]:
    title = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **(extra or {})}


_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457. Further members may follow.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened, what was expected, what came"},
        "code": {"type": "string", "description": "stable, for programs"},
    },
}


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error that leaves a route, the router itself or the middleware added so far, a problem.

    Middleware that is added later gives its headers to all of them. Starlette's own place for a handler of Exception is
    outside of all middleware: a page on another origin could not read that answer.
    """
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_middleware(ServerErrorMiddleware, handler=_unhandled)
    app.add_exception_handler(Exception, _unhandled)  # of the middleware that is added later


async def _service_error(request: Request, error: Exception) -> Response:
    return answer(cast(ServiceError, error), request.scope["path"])


async def _invalid_request(request: Request, error: Exception) -> Response:
    complaints = complaints_of(cast(RequestValidationError, error))
    detail = "; ".join(map(str, complaints))
    fields = [complaint._asdict() for complaint in complaints]
    return problem(request.scope["path"], 422, InvalidRequest.code, detail, extra={"errors": fields})


async def _http_error(request: Request, error: Exception) -> Response:
    """The router's own 404 and 405, and its 400 of a body that no JSON parser takes."""
    error = cast(HTTPException, error)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.BAD_REQUEST:
        detail = f"the body should be JSON in UTF-8; {error.__cause__ or error.detail}"
        return problem(request.scope["path"], status, MalformedBody.code, detail)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(request.scope["path"], status, status.name.lower(), detail, dict(error.headers or {}))


async def _client_gone(request: Request, __: Exception) -> Response:
    return answer(ClientGone("the client left before its upload was complete"), request.scope["path"])


async def _unhandled(request: Request, __: Exception) -> Response:
    """The server logs the exception whole: Starlette raises it again once this answer is sent."""
    detail = "the service failed on this request; its log says why"
    return problem(request.scope["path"], 500, ServiceError.code, detail)
