"""Shows where the time goes: in a run by kind of node, in a request by stage. Prints Markdown."""

import argparse
import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

from app.execution.provider import PROVIDERS
from app.execution.session import provider_options
from benchmarks.machine import machine
from benchmarks.photos import small_photos
from benchmarks.report import LIBRARIES, markdown
from benchmarks.servers import CORES, MODEL, MODELS, PROVIDER, multipart, running
from training.contract.manifest import INPUT_NAME
from training.contract.repository import ModelRepository
from training.images.decode import decode

WARM_UP = 5  # runs


def nodes(path: Path, image: np.ndarray[Any, Any], runs: int) -> tuple[dict[str, float], float]:
    """Returns milliseconds of a run by kind of node, and of the whole run; profiling makes both a little longer."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = CORES
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        provider = (PROVIDERS[PROVIDER].name, provider_options(PROVIDER, CORES))
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
        seconds = []
        for _ in range(WARM_UP + runs):
            begun = time.perf_counter()
            session.run(None, {INPUT_NAME: image})
            seconds.append(time.perf_counter() - begun)
        events = json.loads(Path(session.end_profiling()).read_text())
        kinds = kinds_of(onnx.load(options.optimized_model_filepath))
    spent: dict[str, list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            spent.setdefault(name, []).append(event["dur"] / 1e3)
    totals: dict[str, float] = {}
    for name, milliseconds in spent.items():
        kind = kinds.get(name, "other")
        totals[kind] = totals.get(kind, 0) + statistics.mean(milliseconds[WARM_UP:])
    return totals, 1e3 * statistics.mean(seconds[WARM_UP:])


def kinds_of(model: onnx.ModelProto) -> dict[str, str]:
    """Returns the name in the table for each node: a convolution's has its kernel and the width of a group."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    kinds = {}
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        kinds[node.name] = node.op_type
        if "Conv" in node.op_type:
            kernel = next(shapes[name] for name in node.input if len(shapes.get(name, [])) == 4)
            size = "x".join(map(str, attributes.get("kernel_shape", kernel[2:])))
            groups = attributes.get("group", 1)
            width = f", {groups} groups of {kernel[1]} channels" if groups > 1 else ""
            kinds[node.name] = f"{node.op_type} {size}{width}"
    return kinds


def stages(precision: str, photos: list[bytes], requests: int) -> dict[str, float]:
    """Returns median milliseconds of each stage of a lone request; `around` is what Server-Timing does not name."""
    found: dict[str, list[float]] = {}
    name = "resnext-fp32" if precision == "fp32" else "resnext"
    with running(name, MODELS / "real", photos[0]) as server:
        if server.model()["precision"] != precision:
            return {}
        for i in range(WARM_UP + requests):
            kind, body = multipart(photos[i % len(photos)])
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}/predict", body, {"Content-Type": kind})
            begun = time.perf_counter()
            with urllib.request.urlopen(request) as answer:  # noqa: S310  http, above
                answer.read()
            whole = 1e3 * (time.perf_counter() - begun)
            timing = answer.headers["Server-Timing"].split(", ")
            named = {stage: float(value) for stage, value in (part.split(";dur=") for part in timing)}
            for stage, value in {**named, "around": whole - sum(named.values())}.items():
                found.setdefault(stage, []).append(value)
    return {stage: statistics.median(values[WARM_UP:]) for stage, values in found.items()}


def main() -> None:
    """Profiles each precision of the benchmark's real model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    photos = small_photos()
    repository = ModelRepository(MODELS / "real", MODEL)
    manifest = repository.manifest(1)
    image = decode(photos[0], manifest.preprocessing)[None]
    for precision, variant in manifest.variants.items():
        totals, whole = nodes(repository.path(1) / variant.file_on(PROVIDER), image, options.runs)
        total = sum(totals.values())
        most = sorted(totals.items(), key=lambda item: -item[1])
        rows = [[kind, f"{ms:.2f}", f"{ms / total:.0%}"] for kind, ms in most]
        lines = [
            f"{precision}: {whole:.1f} ms a run, {total:.1f} of it in nodes.",
            markdown(["node", "ms", "share"], rows),
        ]
        if found := stages(precision, photos, options.runs):
            lines.append(f"A lone request, ms: {', '.join(f'{stage} {ms:.2f}' for stage, ms in found.items())}.")
        sys.stdout.write("\n\n".join(lines) + "\n\n")
    sys.stdout.write(f"{machine(LIBRARIES)}\n")


if __name__ == "__main__":
    main()
