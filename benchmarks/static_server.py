"""A server that reads a request and sends one fixed answer: it shows the most that the client can do."""

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.load import LENGTH

BODY = b'{"predictions": [' + b", ".join([b'{"label": "class 0000", "probability": 0.2}'] * 5) + b"]}"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Static(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        length = LENGTH.search(self.received) if end >= 0 else None
        if length and len(self.received) >= end + 4 + int(length[1]):
            self.received.clear()
            self.transport.write(ANSWER)


async def main(port: int) -> None:
    """Serves until it is killed."""
    server = await asyncio.get_running_loop().create_server(Static, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
