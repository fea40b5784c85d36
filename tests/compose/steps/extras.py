import subprocess

import numpy as np
from tritonclient import grpc as triton

from tests.compose.engine import COMPOSE, compose, inspect, layered, say, url
from tests.compose.service import answers, images, page, ready
from tests.process import ROOT, until

# a minimal OpenTelemetry collector: prints the path that the first spans were sent to, and the spans
COLLECTOR = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        spans = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        sys.stdout.buffer.write(self.path.encode() + spans)

http.server.HTTPServer(("", 4318), Handler).handle_request()
"""


def extras() -> None:
    """gRPC and traces work as docs/containers.md sets them; without a collector only the spans are lost."""
    changes = page("containers.md", "services:\n  api:\n    environment: {RESNEXT_GRPC_PORT")
    api = changes["services"]["api"]
    api["environment"]["RESNEXT_OTLP_ENDPOINT"] = "http://trainer:4318"  # instead of in a further container
    api["ports"] = [port.replace(":8001:", ":0:") for port in api["ports"]]  # any that is free
    before = answers()
    with layered(changes) as files:
        compose(*files, "up", "--detach", "--no-build", "api")
        until(ready, 60)
        assert answers() == before  # nobody listens on 4318 yet
        until(lambda: "Failed to export spans" in compose("logs", "api"), 60)
        with triton.InferenceServerClient(url("api", 8001).removeprefix("http://")) as client:
            for name, image in images().items():
                tensor = triton.InferInput("image", [1], "BYTES")
                tensor.set_data_from_numpy(np.array([image], np.object_))
                best = triton.InferRequestedOutput("probabilities", class_count=1)
                (found,) = client.infer("resnext50", [tensor], outputs=[best]).as_numpy("probabilities").ravel()
                assert found.decode().rpartition(":")[2] == before[name]
        command = [*COMPOSE, "exec", "-T", "trainer", "python", "-c", COLLECTOR]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as collector:
            until(lambda: answers() == before and collector.poll() is not None, 60)
            assert collector.stdout
            spans = collector.stdout.read()
        assert spans.startswith(b"/v1/traces")
        assert b"POST /predict" in spans
        say(f"{len(before)} answers over gRPC; the first {len(spans)} bytes of spans")
        compose("stop", "api")
        assert inspect("api")["State"]["ExitCode"] == 0
    compose("up", "--detach", "--no-build", "api")
    until(ready, 60)
