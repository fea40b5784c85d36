"""A small application behind the real door, on a real socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.api.door.connection import Connection, connections_of
from app.api.door.door import Door
from app.processes.drain import Drain
from app.processes.server import DrainingServer
from tests.app.world import until

BIG = 64 * 1024**2


class Served:
    """The server, its door, and an event for which GET /wait waits."""

    def __init__(self, most: int = 100) -> None:
        self.door = Door(most)
        self.go = asyncio.Event()
        self.asked: list[str] = []
        self._clients: list[Client] = []
        routes = [
            Route("/health/live", self._echo),
            Route("/echo", self._echo, methods=["GET", "POST", "PUT"]),
            Route("/early", self._early, methods=["POST"]),
            Route("/wait", self._wait),
            Route("/big", self._big),
            Route("/whole", self._whole),
        ]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        config = uvicorn.Config(
            Starlette(routes=routes), http=connections_of(self.door), ws="none", log_config=None, loop="none"
        )
        self.server = DrainingServer(config, Drain(), 0, self.door.check)

    async def _echo(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        try:
            body = await request.body()
        except ClientDisconnect:
            return PlainTextResponse("gone")
        return PlainTextResponse(f"{len(body)} {len(request.headers)}")

    async def _early(self, _: Request) -> Response:
        return PlainTextResponse("early")

    async def _wait(self, _: Request) -> Response:
        await self.go.wait()
        return PlainTextResponse("waited")

    async def _big(self, _: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(BIG // 2**20):
                yield bytes(2**20)

        return StreamingResponse(parts())

    async def _whole(self, _: Request) -> Response:
        return Response(bytes(BIG))

    @property
    def connections(self) -> list[Connection]:
        return list(self.server.server_state.connections)  # type: ignore[arg-type]  # uvicorn names its own

    def later(self, seconds: float) -> None:
        """Has the door look as if so much time had passed."""
        self.door.check(asyncio.get_running_loop().time() + seconds)

    async def close_port(self) -> None:
        """Closes the port, and has each connection end, as at the service's end."""
        if self._listener.fileno() >= 0:
            await self.server._close_port([self._listener])
            for connection in self.connections:
                connection.shutdown()

    async def connect(self) -> "Client":
        before = len(self.connections)
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**18))
        self._clients.append(client)
        if before < self.door.most:
            await until(lambda: len(self.connections) > before)
        return client

    async def __aenter__(self) -> "Served":
        config = self.server.config
        config.load()
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup([self._listener])
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.go.set()
        for client in self._clients:
            client.writer.transport.abort()
        for connection in self.connections:
            connection.transport.abort()
        await self.close_port()
        await self.server.lifespan.shutdown()
        await until(lambda: not self.server.server_state.tasks)


class Client:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Returns the status and the body of the next answer."""
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            return int(head[9:12]), await self.reader.readexactly(int(length.partition(b":")[2]))

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        await self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Returns what comes until the server closes."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b"(reset)"


def post(path: str, body: bytes = b"", length: int | None = None, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def chunked(path: str, chunks: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks
