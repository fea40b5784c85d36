"""A small server that answers as the Hugging Face hub does for one file, and with the faults that a test asks for."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "timm/resnext50_32x4d.tv_in1k"
PLAIN = "/plain.safetensors"  # the same file without a hub


@dataclass
class Hub:
    """The files of the server, its failures, and the requests that came."""

    data: bytes
    port: int = 0
    commit: str = "c" * 40
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    breaks: list[int] = field(default_factory=list)  # bytes after which the next transfers break off
    silent_after: int | None = None  # bytes after which nothing more comes
    silent: bool = False  # there is no answer at all
    elsewhere: str | None = None  # another origin, which the file comes from
    packed: bool = False
    unsized: bool = False  # the length is not said, the connection ends the file
    sha256: str = ""
    etag: str = '"v1"'
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sha256 = self.sha256 or hashlib.sha256(self.data).hexdigest()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return self.endpoint + PLAIN

    def ranges(self) -> list[str]:
        """Returns what each GET asked for: a range, or nothing."""
        return [headers.get("range", "") for method, _, headers in self.requests if method == "GET"]


@contextmanager
def stand_in_hub(data: bytes) -> Iterator[Hub]:
    """Yields a hub with this file, at a port of its own."""
    hub = Hub(data)

    class Handler(_Handler):
        def setup(self) -> None:
            self.hub = hub
            super().setup()

    server = _Server(("127.0.0.1", 0), Handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gives up leaves a broken pipe


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        if hub.silent:
            hub.released.wait()
            self.close_connection = True
        elif hub.refusal:
            self._head(hub.refusal[0], {"X-Error-Code": hub.refusal[1], "Content-Length": "0"})
        elif self.path.startswith(("/elsewhere", PLAIN)):
            self._file({"ETag": hub.etag})
        elif not re.fullmatch(rf"/{REPOSITORY}/resolve/(main|{hub.commit})/model\.safetensors", self.path):
            self._head(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
        elif hub.elsewhere:
            facts = {"X-Linked-Etag": f'"{hub.sha256}"', "X-Linked-Size": str(len(hub.data))}
            place = {"Location": f"{hub.elsewhere}/elsewhere", "Content-Length": "0"}
            self._head(302, {**facts, "X-Repo-Commit": hub.commit, **place})
        else:
            self._file({"ETag": f'"{hub.sha256}"', "X-Repo-Commit": hub.commit})

    def _file(self, headers: dict[str, str]) -> None:
        hub, data, status = self.hub, self.hub.data, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range") in (None, hub.etag):
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        if hub.packed:
            headers["Content-Encoding"] = "gzip"
        length = {"Connection": "close"} if hub.unsized else {"Content-Length": str(len(data))}
        self._head(status, {**headers, **length})
        if self.command == "HEAD":
            return
        if hub.breaks:
            self.wfile.write(data[: hub.breaks.pop(0)])
            self.close_connection = True
        elif hub.silent_after is not None:
            self.wfile.write(data[: hub.silent_after])
            hub.released.wait()
            self.close_connection = True
        else:
            self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
