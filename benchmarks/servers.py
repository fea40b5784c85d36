"""The servers that are compared, and how each is started, asked, measured and ended.

Each peer runs as its documentation advises, in `.bench/envs/<peer>`, with the service's versions of ONNX Runtime, NumPy
and Pillow, and at the better of two settings for the load that comes.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from app.execution.cores import usable_cores
from app.execution.probe import choose_provider
from app.execution.provider import PROVIDERS, Provider
from training.contract.manifest import MODEL_FILE, Precision

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
MODELS = BENCH / "models"  # a model repository for each network of benchmarks.models
MODEL = "resnext50"
CORES = usable_cores()
PROVIDER = choose_provider(cast(Provider, os.environ.get("RESNEXT_PROVIDER", "auto")))
START_S = 120
STOP_S = 20


def multipart(photo: bytes) -> tuple[str, bytes]:
    """Returns content type and body as `curl -F file=@photo.jpg` sends them."""
    part = b'Content-Disposition: form-data; name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg'
    return "multipart/form-data; boundary=bench", b"--bench\r\n" + part + b"\r\n\r\n" + photo + b"\r\n--bench--\r\n"


def raw(photo: bytes) -> tuple[str, bytes]:
    """Returns content type and body of the JPEG alone."""
    return "image/jpeg", photo


def open_inference(photo: bytes) -> tuple[str, bytes]:
    """Returns content type and body of the V2 protocol's JSON."""
    data = [base64.b64encode(photo).decode()]
    return "application/json", json.dumps(
        {"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": data}]}
    ).encode()


@dataclass(frozen=True)
class Server:
    """A row of the tables. `{port}`, `{root}` and `{env}` in its command and environment are filled in."""

    name: str
    command: str
    environment: dict[str, str] = field(default_factory=dict)
    body: Callable[[bytes], tuple[str, bytes]] = multipart
    path: str = "/predict"
    ours: bool = False
    precisions: tuple[Precision, ...] = ("fp32",)  # that it may serve
    bounded: bool = True  # whether the bound, measured with the execution provider of this process, is its bound
    batches: bool = True  # has its own batching to set up, which pays on a GPU
    networks: tuple[str, ...] = ("real", "tiny")  # that it is measured with
    answers_all: bytes | None = None  # the label that it always gives

    def request(self, photo: bytes) -> bytes:
        """Returns a complete HTTP request."""
        kind, body = self.body(photo)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


OURS = "{python} -m app"
TRIED = PROVIDERS[PROVIDER].precisions
SERVERS = {
    "resnext": Server(
        "**ResNeXt Service, as shipped**", OURS, {"RESNEXT_PRECISION": "auto"}, ours=True, precisions=TRIED
    ),
    "resnext-fp32": Server("**ResNeXt Service, fp32**", OURS, {"RESNEXT_PRECISION": "fp32"}, ours=True),
    "resnext-processes": Server(
        "**ResNeXt Service, a process a core**",
        OURS,
        {"RESNEXT_PRECISION": "auto", "RESNEXT_PROCESSES": "{cores}"},
        ours=True,
        precisions=TRIED,
        networks=("tiny",) if PROVIDER == "cpu" else ("real", "tiny"),
    ),
    "resnext-openvino": Server(
        "**ResNeXt Service, OpenVINO**",
        "{env}/python -m app",
        {"RESNEXT_PROVIDER": "openvino", "RESNEXT_PRECISION": "auto"},
        ours=True,
        precisions=PROVIDERS["openvino"].precisions,
        bounded=False,
        networks=("real",),
    ),
    "fastapi": Server("FastAPI by hand", "{env}/python -m benchmarks.peers.fastapi.server", batches=False),
    "litserve": Server("LitServe", "{env}/python -m benchmarks.peers.litserve.server"),
    "mosec": Server(
        "MOSEC",
        "{env}/python {root}/benchmarks/peers/mosec/server.py --address 127.0.0.1 --port {port} --timeout 60000",
        body=raw,
        path="/inference",
    ),
    "bentoml": Server(
        "BentoML",
        "{env}/bentoml serve benchmarks.peers.bentoml.server:Service --host 127.0.0.1 --port {port}",
        {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": "{scratch}"},
        batches=False,
    ),
    "ray": Server(
        "Ray Serve",
        "{env}/python {root}/benchmarks/peers/ray/server.py",
        {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        body=raw,
    ),
    "mlserver": Server(
        "MLServer",
        "{env}/mlserver start {root}/benchmarks/peers/mlserver",
        {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_METRICS_ENDPOINT": "", "MLSERVER_DEBUG": "false"},
        body=open_inference,
        path="/v2/models/resnext50/infer",
    ),
    "static": Server(
        "nothing: one fixed answer",
        "{python} -m benchmarks.static_server {port}",
        networks=("tiny",),
        answers_all=b"class 0000",
    ),
}


def environment_of(name: str) -> Path:
    """Returns a peer's virtual environment, or one of ours."""
    server = SERVERS[name]
    if server.command.startswith("{python}"):
        return Path(sys.prefix)
    return ROOT / ".venv-openvino" if server.ours else BENCH / "envs" / name


def installed(name: str) -> bool:
    """Whether `make bench-peers` or `make bench-openvino` has finished this server's environment."""
    return environment_of(name) == Path(sys.prefix) or (environment_of(name) / "installed").exists()


@dataclass
class Running:
    """A server that has answered."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float  # from the start of the process to the first right answer

    def cpu(self) -> float:
        """Returns the CPU seconds of its processes so far."""
        ticks = 0
        for pid in tree(self.process.pid):
            if fields := _stat(pid):
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Returns the bytes that its processes hold; a page that several share counts once."""
        total = 0
        for pid in tree(self.process.pid):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total

    def model(self) -> dict[str, Any]:
        """Returns what our service reports about the model that it serves: `version`, `precision` and more."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as answer:
            health: dict[str, dict[str, Any]] = json.load(answer)
        return health["model"]


@contextmanager
def running(name: str, models: Path, photo: bytes, crowd: bool = True) -> Iterator[Running]:
    """Starts a server on a model repository's version 1, waits for its first answer, ends it with all it started.

    With `crowd` it will have many clients, so a peer gets one process a core with one thread each, on a GPU only if it
    has no batches. For a single client one process with all threads is twice as fast. Our service is the same for both.

    Raises RuntimeError with the end of its log if it does not answer.
    """
    server = SERVERS[name]
    log = BENCH / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch, log.open("wb") as output:
        port = free_port()
        places = {"port": port, "root": ROOT, "env": environment_of(name) / "bin", "python": sys.executable}
        command = [word.format(**places) for word in server.command.split()]
        environment = _environment(server, port, models, Path(scratch), crowd)
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not answers(port, server.request(photo)):
                if process.poll() is not None or time.monotonic() > started + START_S:
                    raise RuntimeError(f"{name} does not answer: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield Running(process, port, time.monotonic() - started)
        finally:
            stop(process)


def _environment(server: Server, port: int, models: Path, scratch: Path, crowd: bool) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RESNEXT_", "BENCH_"))}
    gpu = PROVIDER != "cpu"
    workers = CORES if crowd and not (gpu and server.batches) else 1
    ours = {
        "RESNEXT_PROVIDER": PROVIDER,
        "RESNEXT_MODELS": models,
        "RESNEXT_DATASETS": scratch / "datasets",
        "RESNEXT_STATE": scratch / "state",
        "RESNEXT_PORT": port,
        "RESNEXT_LOG_LEVEL": "warning",
        "RESNEXT_QUEUE_SECONDS": 60,  # the peers let all clients wait, too
    }
    peers = {
        "PYTHONPATH": ROOT,
        "BENCH_MODEL": models / MODEL / "1" / MODEL_FILE,
        "BENCH_PROVIDER": PROVIDER,
        "BENCH_PORT": port,
        "BENCH_WORKERS": workers,
        "BENCH_THREADS": CORES // workers,
        "BENCH_BATCH": 16 if gpu and server.batches else 1,  # on a CPU a batch gives no more images a second
        # CUDA's libraries are only in our environment
        "LD_LIBRARY_PATH": ":".join(map(str, Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/lib"))),
        "MLSERVER_HTTP_PORT": port,
        "MLSERVER_GRPC_PORT": free_port(),
        "MLSERVER_PARALLEL_WORKERS": workers,
        "MLSERVER_MODEL_MAX_BATCH_SIZE": 16 if gpu else 0,
        "MLSERVER_MODEL_MAX_BATCH_TIME": 0.005 if gpu else 0,
    }
    own = {key: value.format(scratch=scratch, cores=CORES) for key, value in server.environment.items()}
    return inherited | {key: str(value) for key, value in (ours if server.ours else peers).items()} | own


def answers(port: int, request: bytes) -> bool:
    """Whether the server answers with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            return connection.recv(12)[9:] == b"200"
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to the server, then SIGKILL to those of its processes that are left."""
    family = {pid: _started(pid) for pid in tree(process.pid)}
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, started in family.items():
        if started and _started(pid) == started:  # the same process, not a new one with its number
            os.kill(pid, signal.SIGKILL)


def tree(root: int) -> list[int]:
    """Returns a process and all its descendants."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (fields := _stat(int(path.name))):
            parents[int(path.name)] = int(fields[1])
    family = [root]
    for pid in family:  # it grows
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _stat(pid: int) -> list[str] | None:
    """Returns `/proc/<pid>/stat` from the state on (proc_pid_stat(5), field 3); None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def free_port() -> int:
    """Returns a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
