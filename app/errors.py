"""Every error that a client can see, with its status and its stable code."""

from typing import ClassVar

from starlette.exceptions import HTTPException

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


class ModelNotFound(ServiceError):
    status, code = 404, "model_not_found"


class UnknownService(ServiceError):
    status, code = 404, "unknown_service"


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


class NotSupported(ServiceError):
    status, code = 501, "not_supported"


class NoModel(ServiceError):
    status, code = 503, "no_model"


class VersionNotLive(ServiceError):
    status, code = 503, "version_not_live"


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
