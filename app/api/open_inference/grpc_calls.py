"""Wraps every gRPC call: it is observed like a request over HTTP, needs a key, and ends with a status."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers
from starlette.types import Scope

from app.api.access.access import Access
from app.api.access.granted import grant, shown
from app.api.access.scopes import required
from app.api.open_inference.fields import with_few_fields
from app.api.problems import protocol_status
from app.errors import (
    DOMAIN,
    ClientError,
    ClientGone,
    MalformedBody,
    NotSupported,
    ServiceError,
    TooSlow,
    status_and_code,
)
from app.inference.upload_memory import Lease, UploadMemory
from app.observability.observation import Observation
from app.observability.requests import OTHER, Requests

logger = logging.getLogger(__name__)

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
# the message travels in a header, where a byte may take three; clients refuse more than 8 KB of headers
MESSAGE_CHARACTERS = 512
READ_S = 30.0  # for a message, with the wait for its turn: 32 MiB at 10 Mbit/s

Handler = Any  # grpcio has no types
Context = Any
Message = Any


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """An interceptor for methods with one request and one response; any other method is UNIMPLEMENTED.

    It registers the methods as taking a stream of requests, which is the same on the wire. So a call arrives here with
    its first byte, and a call without a key is refused before its message is read.
    """

    def __init__(self, requests: Requests, access: Access, uploads: UploadMemory, max_upload: int) -> None:
        self._requests = requests
        self._access = access
        self._uploads = uploads
        # gRPC says nothing of a message before all of it is here, so each that is being read counts as a large one
        self._reading = asyncio.Semaphore(max(1, uploads.capacity // max_upload))

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Handler]], details: Any) -> Handler:
        """Returns a handler for this one call."""
        scope = _scope(details)
        request = self._requests.begin(scope)
        handler = await continuation(details)
        route = details.method if handler else OTHER

        async def call(_: object, context: Context) -> Any:
            context.add_done_callback(lambda _: self._requests.end(scope, route, request))
            context.set_trailing_metadata(_trailing(request))
            error: ClientError
            lease = self._uploads.lease()
            try:
                needed = required("POST", details.method)
                caller = self._access.caller(Headers(scope=scope), needed)
                request.key = caller.key
                self._access.require(caller, needed, _address(context))
                grant(caller.scope)
                if handler is None or handler.unary_unary is None:
                    raise NotImplementedError
                answer = await handler.unary_unary(await self._read(context, lease), context)
                request.status = 200
                return answer
            except ServiceError as failed:
                error = failed
            except tuple(DOMAIN) as failed:
                error = failed
            except NotImplementedError:  # the base class raises it too, for methods that are not offered
                error = NotSupported(f"{details.method} is not supported")
            except Exception:  # gRPC would send the exception's text to the client
                logger.exception("%s failed", details.method)
                error = ServiceError("the service failed on this request; its log says why")
            finally:
                lease.end()
            request.status = protocol_status(status_and_code(type(error))[0])
            code = CODES.get(request.status, grpc.StatusCode.INTERNAL)
            headers = error.headers if isinstance(error, ServiceError) else None
            return await context.abort(code, shown(error)[:MESSAGE_CHARACTERS], _trailing(request, headers))

        return grpc.stream_unary_rpc_method_handler(
            call, handler and with_few_fields(handler.request_deserializer), handler and handler.response_serializer
        )

    async def _read(self, context: Context, lease: Lease) -> Message:
        """Reads the call's one message. Raises MalformedBody, ClientGone, TooSlow, UploadsFull."""
        try:
            async with asyncio.timeout(READ_S), self._reading:
                message = await context.read()
        except DecodeError as error:
            raise MalformedBody(f"the message should be this method's protobuf, it cannot be read: {error}") from None
        except TimeoutError:
            raise TooSlow(f"a message should arrive within {READ_S:g} s") from None
        if message is grpc.aio.EOF:
            # also for a message over the limit, which gRPC itself answers; the two cannot be told apart here
            raise ClientGone("the call ended before its message had arrived")
        lease.take(message.ByteSize())
        return message


def _address(context: Context) -> str:
    """Returns the client's address, of "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000"; the rest of any other form."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")


def _scope(details: Any) -> Scope:
    """Describes a call as an ASGI scope: over HTTP/2 it is a POST to the path of its method."""
    headers = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in details.invocation_metadata
    ]
    return {"type": "grpc", "method": "POST", "path": details.method, "headers": headers}


def _trailing(request: Observation, headers: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    return ("x-request-id", request.id), *((name.lower(), value) for name, value in (headers or {}).items())
