"""Compares OpenVINO with ONNX Runtime's own CPU provider: the service on OpenVINO, then model files on both by turns.

`make bench-openvino` makes OpenVINO's environment and prints a Markdown table. Each provider has a process of its own,
in its own environment, with its sessions warm; the process that is not asked waits for a line.
"""

import argparse
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime
from PIL import Image

from app.execution.provider import PROVIDERS, Provider
from app.execution.session import open_session, provider_options
from benchmarks.inference import rate
from benchmarks.machine import machine
from training.contract.manifest import Precision
from training.contract.repository import ModelRepository

ARRANGEMENTS = {  # threads of a run, runs at once, images of a run
    "one run of two threads": (2, 1, 1),
    "the same, 2 images a run": (2, 1, 2),
    "the same, 4 images a run": (2, 1, 4),
    "one run of one thread": (1, 1, 1),
    "two runs of one thread": (1, 2, 1),
}
START_S = 120


class Runner:
    """A process of `python` that measures files on one provider when it is asked to."""

    def __init__(self, python: Path, provider: str) -> None:
        command = [str(python), "-m", "benchmarks.openvino", "--serve", provider]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, path: Path, threads: int, runs: int, images: int, seconds: float) -> float:
        """Returns images a second."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(path), threads, runs, images, seconds]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.communicate()  # the end of its input ends it


def main() -> None:
    """Prints the proof that the service runs on OpenVINO, then the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=Path(".venv-openvino"))
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="model repository; its active version is used"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--serve", metavar="PROVIDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    python = options.environment / "bin" / "python"
    sys.stdout.write(f"{prove(python, options.models)}\n\n")
    repository = ModelRepository(options.models, "resnext50")
    version = repository.active()
    assert version
    variants = repository.manifest(version).variants
    tried = PROVIDERS["openvino"].precisions  # not fp16, which is for GPUs
    files = {name: repository.path(version) / variants[name].file for name in variants if name in tried}
    with Runner(Path(sys.executable), "cpu") as cpu, Runner(python, "openvino") as openvino:
        sys.stdout.write(table(files, {"CPU": cpu, "OpenVINO": openvino}, options.rounds, options.seconds))
    sys.stdout.write(f"\n{versions(python)}; {machine()}\n")


def prove(python: Path, models: Path) -> str:
    """Starts the service on OpenVINO, classifies an image and returns what runs. The golden check has passed then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"MODELS": str(models), "PROVIDER": "openvino", "PORT": str(port), "LOG_LEVEL": "warning"}
    environment = os.environ | {f"RESNEXT_{name}": value for name, value in settings.items()}
    service = subprocess.Popen([python, "-m", "app"], env=environment)
    try:
        end = time.monotonic() + START_S
        while not _get(port, "/health/ready"):
            if service.poll() is not None or time.monotonic() > end:
                raise SystemExit("the service did not become ready on OpenVINO")
            time.sleep(0.2)
        model = _get(port, "/health")["model"]
        file = io.BytesIO()
        Image.effect_mandelbrot((500, 375), (-2, -1, 1, 1), 50).save(file, "PNG")
        answer = _get(port, "/predict?top_k=1", file.getvalue())
        (prediction,) = answer["results"][0]["predictions"]
        return f"service: {model['precision']} on {model['provider']}, speeds {model['speeds']}, answers {prediction}"
    finally:
        service.terminate()
        service.wait()


def _get(port: int, path: str, body: bytes | None = None) -> Any:  # Any: JSON
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "image/png"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  http, above
            return json.load(response)
    except urllib.error.URLError:
        return None  # not listening yet, or not ready


def table(files: Mapping[Precision, Path], runners: dict[str, Runner], rounds: int, seconds: float) -> str:
    """Returns a table: medians of images/s, and the median of the rounds' ratios."""
    measured: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(rounds):
        for name, (threads, runs, images) in ARRANGEMENTS.items():
            for precision, path in files.items():
                rates = [runner.rate(path, threads, runs, images, seconds) for runner in runners.values()]
                measured.setdefault((name, precision), []).append(rates)
    heads = [f"{precision}, {provider}" for precision in files for provider in [*runners, "ratio"]]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name in ARRANGEMENTS:
        cells = []
        for precision in files:
            pairs = measured[name, precision]
            cells += [f"{statistics.median(column):.1f}" for column in zip(*pairs, strict=True)]
            cells.append(f"{statistics.median(new / old for old, new in pairs):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def versions(python: Path) -> str:
    """Returns the versions of ONNX Runtime's build with OpenVINO."""
    command = [str(python), "-c", "import onnxruntime as o; print(o.__version__)"]
    return f"onnxruntime-openvino {subprocess.check_output(command, text=True).strip()}"


def serve(provider: Provider) -> None:
    """Measures what each line of standard input asks for, and prints images/s."""
    sessions: dict[tuple[str, int, int], onnxruntime.InferenceSession] = {}
    for line in sys.stdin:
        path, threads, runs, images, seconds = json.loads(line)
        key = (path, threads, runs)
        if key not in sessions:
            sessions[key] = open_for(Path(path), provider, threads, runs)
        shape = sessions[key].get_inputs()[0].shape[1:]
        sessions[key].run(None, {"image": np.zeros((images, *shape), np.uint8)})
        sys.stdout.write(f"{rate(sessions[key], runs, images, seconds)}\n")
        sys.stdout.flush()


def open_for(path: Path, provider: Provider, threads: int, runs: int) -> onnxruntime.InferenceSession:
    """Opens a session as the service does; several runs at once need as many streams, which the service never uses."""
    if provider != "openvino" or runs == 1:
        return open_session(path, provider, threads)
    options = provider_options(provider, threads * runs, streams=runs)
    return onnxruntime.InferenceSession(str(path), providers=[(PROVIDERS[provider].name, options)])


if __name__ == "__main__":
    main()
