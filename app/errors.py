"""Every error that a client can see, and the one place that turns them into RFC 9457 problems."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from app.observation import CURRENT

PROBLEM_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is left to read it


class ServiceError(HTTPException):
    """Base of what a client is told. `extra` are further members of the problem object.

    An HTTPException, since FastAPI lets only those through while it reads a body; any other becomes its own 400.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: object) -> None:
        super().__init__(self.status, detail, headers)
        self.extra = extra

    def __str__(self) -> str:
        return self.detail


class MalformedBody(ServiceError):
    status, code = 400, "malformed_body"


class Unauthorized(ServiceError):
    status, code = 401, "unauthorized"


class VersionNotFound(ServiceError):
    status, code = 404, "version_not_found"


class DatasetNotFound(ServiceError):
    status, code = 404, "dataset_not_found"


class JobNotFound(ServiceError):
    status, code = 404, "job_not_found"


class ReportNotFound(ServiceError):
    status, code = 404, "report_not_found"


class VersionLive(ServiceError):
    status, code = 409, "version_live"


class VersionUnusable(ServiceError):
    status, code = 409, "version_unusable"


class DatasetMounted(ServiceError):
    status, code = 409, "dataset_mounted"


class DatasetInUse(ServiceError):
    status, code = 409, "dataset_in_use"


class JobFinished(ServiceError):
    status, code = 409, "job_finished"


class JobNotResumable(ServiceError):
    status, code = 409, "job_not_resumable"


class UploadTooLarge(ServiceError):
    status, code = 413, "upload_too_large"


class TooManyFiles(ServiceError):
    status, code = 413, "too_many_files"


class ArchiveTooLarge(ServiceError):
    status, code = 413, "archive_too_large"


class UnsupportedBody(ServiceError):
    status, code = 415, "unsupported_body"


class InvalidRequest(ServiceError):
    status, code = 422, "invalid_request"


class IdempotencyKeyReused(ServiceError):
    status, code = 422, "idempotency_key_reused"


class NoFile(ServiceError):
    status, code = 422, "no_file"


class WrongField(ServiceError):
    status, code = 422, "wrong_field"


class NoValidImage(ServiceError):
    status, code = 422, "no_valid_image"


class ArchiveUnusable(ServiceError):
    status, code = 422, "archive_unusable"


class DatasetUnusable(ServiceError):
    status, code = 422, "dataset_unusable"


class ClientGone(ServiceError):
    status, code = CLIENT_CLOSED_REQUEST, "client_gone"


class InferenceFailed(ServiceError):
    status, code = 500, "inference_failed"


class DatasetDamaged(ServiceError):
    status, code = 500, "dataset_damaged"


class IntakeFailed(ServiceError):
    status, code = 500, "intake_failed"


class NoModel(ServiceError):
    status, code = 503, "no_model"


class QueueFull(ServiceError):
    status, code = 503, "queue_full"


class JobsUnavailable(ServiceError):
    status, code = 503, "jobs_unavailable"


class StorageUnavailable(ServiceError):
    status, code = 503, "storage_unavailable"


class DeadlineExceeded(ServiceError):
    status, code = 504, "deadline_exceeded"


class StorageFull(ServiceError):
    status, code = 507, "storage_full"


def problem(
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> Response:
    """An `application/problem+json` response (RFC 9457). `code` is stable, `detail` is for people."""
    title = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **(extra or {})}
    return JSONResponse(body, status, headers, PROBLEM_TYPE)


def service_problem(error: ServiceError) -> Response:
    """For middleware, which runs outside the handlers."""
    return problem(error.status, error.code, error.detail, error.headers, error.extra)


def documented(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type
    """The `responses=` of a route that may end in these errors."""
    codes: dict[int, list[str]] = {}
    for error in errors:
        codes.setdefault(error.status, []).append(f"`{error.code}`")
    return {
        status: {"description": ", ".join(names), "content": {PROBLEM_TYPE: {"schema": _PROBLEM_SCHEMA}}}
        for status, names in codes.items()
    }


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
    """Makes every error that leaves a route, or the router itself, a problem."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _unhandled)


async def _service_error(_: Request, error: Exception) -> Response:
    return service_problem(cast(ServiceError, error))


async def _invalid_request(_: Request, error: Exception) -> Response:
    items = cast(RequestValidationError, error).errors()
    fields = [
        {"field": ".".join(map(str, e["loc"])), "message": _message(e), "got": repr(e.get("input"))} for e in items
    ]
    detail = "; ".join(f"{f['field']}: {f['message']}, got {f['got']}" for f in fields)
    return problem(422, InvalidRequest.code, detail, extra={"errors": fields})


def _message(item: Mapping[str, Any]) -> str:
    """Without what pydantic writes before the words of a rule between fields."""
    return str(item["msg"]).removeprefix("Value error, ")


async def _http_error(request: Request, error: Exception) -> Response:
    """The router's own 404 and 405."""
    error = cast(HTTPException, error)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(status, status.name.lower(), detail, dict(error.headers or {}))


async def _client_gone(_: Request, __: Exception) -> Response:
    return service_problem(ClientGone("the client left before its upload was complete"))


async def _unhandled(_: Request, __: Exception) -> Response:
    """The server logs the exception whole: Starlette raises it again once this answer is sent."""
    request = CURRENT.get()  # Starlette answers outside of all middleware
    headers = {"X-Request-ID": request.id} if request else None
    return problem(500, ServiceError.code, "the service failed on this request; its log says why", headers)
