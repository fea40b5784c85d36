"""Every error that a client can see, with its status and its stable code."""

from typing import ClassVar

from starlette.exceptions import HTTPException

from training.datasets.listing import DatasetError
from training.datasets.store import DatasetDamaged, DatasetMounted, DatasetNotFound
from training.errors import (
    ArchiveError,
    ArchiveTooLarge,
    ContractError,
    RepositoryUnreadable,
    StorageFull,
    StorageUnavailable,
    TrainingError,
)
from training.jobs.job import JobDamaged, JobFinished, JobNotFound, JobNotResumable, JobsUnavailable, KeyReused

CLIENT_CLOSED_REQUEST = 499  # nginx's number; no client is left to read it


class ServiceError(HTTPException):
    """Base of the errors that the service answers with. `extra` holds further members of the problem object.

    It is an HTTPException, since while FastAPI reads a body it turns any other exception into a 400 of its own.
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


class MalformedRequest(ServiceError):
    status, code = 400, "malformed_request"


class Unauthorized(ServiceError):
    status, code = 401, "unauthorized"


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class VersionNotFound(ServiceError):
    status, code = 404, "version_not_found"


class ModelNotFound(ServiceError):
    status, code = 404, "model_not_found"


class UnknownService(ServiceError):
    status, code = 404, "unknown_service"


class ReportNotFound(ServiceError):
    status, code = 404, "report_not_found"


class TooSlow(ServiceError):
    status, code = 408, "too_slow"


class VersionLive(ServiceError):
    status, code = 409, "version_live"


class VersionUnusable(ServiceError):
    status, code = 409, "version_unusable"


class DatasetInUse(ServiceError):
    status, code = 409, "dataset_in_use"


class UploadTooLarge(ServiceError):
    status, code = 413, "upload_too_large"


class TooManyFiles(ServiceError):
    status, code = 413, "too_many_files"


class UnsupportedBody(ServiceError):
    status, code = 415, "unsupported_body"


class UntrustedHost(ServiceError):
    status, code = 421, "untrusted_host"


class InvalidRequest(ServiceError):
    status, code = 422, "invalid_request"


class NoFile(ServiceError):
    status, code = 422, "no_file"


class WrongField(ServiceError):
    status, code = 422, "wrong_field"


class NoValidImage(ServiceError):
    status, code = 422, "no_valid_image"


class RateLimited(ServiceError):
    status, code = 429, "rate_limited"


class HeadersTooLarge(ServiceError):
    status, code = 431, "headers_too_large"


class ClientGone(ServiceError):
    status, code = CLIENT_CLOSED_REQUEST, "client_gone"


class InferenceFailed(ServiceError):
    status, code = 500, "inference_failed"


class RunTimedOut(InferenceFailed):
    status, code = 504, "run_timed_out"


class IntakeFailed(ServiceError):
    status, code = 500, "intake_failed"


class NotSupported(ServiceError):
    status, code = 501, "not_supported"


class NoModel(ServiceError):
    """No version is live. A `private` detail names a version's files or what is wrong with them."""

    status, code = 503, "no_model"
    PUBLIC = "no version can be served; the service's log says why"

    def __init__(self, detail: str, *, private: bool = False) -> None:
        super().__init__(detail)
        self.private = private


class VersionNotLive(ServiceError):
    status, code = 503, "version_not_live"


class QueueFull(ServiceError):
    status, code = 503, "queue_full"


class UploadsFull(ServiceError):
    status, code = 503, "uploads_full"


class TooManyConnections(ServiceError):
    status, code = 503, "too_many_connections"


class RolloutBusy(ServiceError):
    status, code = 503, "rollout_busy"


class LoadTimedOut(ServiceError):
    status, code = 503, "load_timed_out"


class IntakeBusy(ServiceError):
    status, code = 503, "intake_busy"


class Stuck(ServiceError):
    status, code = 503, "stuck"


class DeadlineExceeded(ServiceError):
    status, code = 504, "deadline_exceeded"


# the status and code of each error that the training packages raise
DOMAIN: dict[type[TrainingError], tuple[int, str]] = {
    DatasetNotFound: (404, "dataset_not_found"),
    JobNotFound: (404, "job_not_found"),
    ContractError: (409, "repository_damaged"),
    DatasetMounted: (409, "dataset_mounted"),
    JobDamaged: (409, "job_damaged"),
    JobFinished: (409, "job_finished"),
    JobNotResumable: (409, "job_not_resumable"),
    ArchiveTooLarge: (413, "archive_too_large"),
    ArchiveError: (422, "archive_unusable"),
    DatasetError: (422, "dataset_unusable"),
    KeyReused: (422, "idempotency_key_reused"),
    DatasetDamaged: (500, "dataset_damaged"),
    JobsUnavailable: (503, "jobs_unavailable"),
    RepositoryUnreadable: (503, "repository_unreadable"),
    StorageUnavailable: (503, "storage_unavailable"),
    StorageFull: (507, "storage_full"),
}

ClientError = ServiceError | TrainingError


def status_and_code(error: type[ClientError]) -> tuple[int, str]:
    """Returns the status and code of an error class, else those of its nearest base. Raises KeyError."""
    if issubclass(error, ServiceError):
        return error.status, error.code
    for base in error.__mro__:
        if base in DOMAIN:
            return DOMAIN[base]
    raise KeyError(error)
