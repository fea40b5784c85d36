"""The scope of the current request's caller. Some routes show more to a caller who may train."""

from contextvars import ContextVar

from app.api.access.scopes import Scope, includes
from app.errors import ClientError, NoModel

# each request has its own task, hence its own context
_granted: ContextVar[Scope | None] = ContextVar("granted", default=None)


def grant(scope: Scope | None) -> None:
    """Notes what the caller of the current request may do."""
    _granted.set(scope)


def may(scope: Scope) -> bool:
    """Whether the caller of the current request has this scope."""
    return includes(_granted.get(), scope)


def shown(error: ClientError) -> str:
    """Returns an error's message for the caller. The reason why a version does not load is for one who may train."""
    return NoModel.PUBLIC if isinstance(error, NoModel) and error.private and not may("train") else str(error)
