"""Ends work that nobody waits for any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from app.errors import ClientGone, DeadlineExceeded


@contextlib.asynccontextmanager
async def deadline(request: Request, seconds: float | None) -> AsyncIterator[None]:
    """Cancels the block after `seconds`, if given, or when the client leaves. Read the request's body before.

    Raises DeadlineExceeded, ClientGone.
    """
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not scope.expired():
            left = True
            scope.reschedule(0)  # a time in the past: the loop's next round cancels the block

    watcher = asyncio.create_task(watch())
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError:
        if left:
            raise ClientGone("the client left before it was answered") from None
        raise expired(seconds) from None
    finally:
        watcher.cancel()


@contextlib.asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after `seconds`. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise expired(seconds) from None


def expired(seconds: float | None) -> DeadlineExceeded:
    """Returns the error of a request that was not answered in time."""
    return DeadlineExceeded(f"no answer within {seconds:g} s; the work that was still queued is dropped")
