"""The gRPC server of the Open Inference Protocol."""

import asyncio
import logging
from typing import Self

import grpc
from grpc_health.v1 import health_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

from app.api.access.access import Access
from app.api.door.connection import HEAD_S
from app.api.door.door import most_connections
from app.api.open_inference.grpc_calls import Calls
from app.api.open_inference.grpc_service import Health, InferenceService
from app.observability.requests import Requests
from app.services import Services

CONNECTIONS = 256  # each carries many calls at one time
STREAMS = 256  # calls of one connection at one time
IDLE_S = 300.0  # for a connection without a call; its client opens another one when it needs it

logger = logging.getLogger(__name__)


class GrpcServer:
    """A server that runs from entering the context until the drain closes the ports or the context is left.

    Calls in flight then have `drain_timeout` to finish, at the same time as requests over HTTP.
    """

    def __init__(self, services: Services, requests: Requests, access: Access) -> None:
        self._services = services
        self._requests = requests
        self._access = access

    async def __aenter__(self) -> Self:
        settings = self._services.settings
        self._server = grpc.aio.server(
            interceptors=[Calls(self._requests, self._access, self._services.uploads, settings.max_upload)],
            options=[
                ("grpc.max_receive_message_length", int(settings.max_upload)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_allowed_incoming_connections", min(CONNECTIONS, most_connections())),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.server_handshake_timeout_ms", int(1000 * HEAD_S)),
                ("grpc.max_connection_idle_ms", int(1000 * IDLE_S)),
                # several processes share the port; a single process must not share it with another service
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceService(self._services), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(Health(self._services), self._server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._server.add_insecure_port(f"{host}:{settings.grpc_port}")
        await self._server.start()
        self._stopping = asyncio.create_task(self._stop())
        logger.info("gRPC on %s:%d", host, settings.grpc_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._services.drain.closing.set()
        await self._stopping

    async def _stop(self) -> None:
        await self._services.drain.closing.wait()
        await self._server.stop(self._services.settings.drain_timeout)
