"""How a model file becomes an ONNX Runtime session in this process, on the execution provider that was asked for."""

import ctypes
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from app.execution import tensorrt
from app.execution.measured import Measurements
from app.execution.opened import Timer
from app.execution.provider import HALF_OPTIONS, PROVIDERS, Provider
from app.execution.runner import FIRST, RUN_S, BoundRunner, DirectRunner, RunLimit, Runner
from app.execution.turns import Turns
from app.watch import Watch
from training.contract.manifest import Precision
from training.system.files import sha256


class ProviderError(Exception):
    """The execution provider that was asked for does not work here."""


@dataclass(frozen=True)
class Execution:
    """The way in which models run in this process.

    `threads` are the CPU's, `cuda_graphs` is for "cuda", and `engines` is the folder where "tensorrt" keeps what it
    compiles. All models of the process share `turns`, `measured`, `timer` and `watch`. `run_seconds` is what a run may
    take at least.
    """

    provider: Provider = "cpu"
    threads: int = 1
    cuda_graphs: bool = True
    engines: Path | None = None
    turns: Turns = field(default_factory=Turns)
    measured: Measurements = field(default_factory=Measurements)
    timer: Timer = field(default_factory=Timer)
    watch: Watch = field(default_factory=Watch)
    run_seconds: float = RUN_S

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        """Opens a version's file for images of one shape, in batches of up to the last of the sizes.

        Raises ProviderError when the provider refuses it, and what ONNX Runtime raises on a bad file.
        """
        if not PROVIDERS[self.provider].nvidia:
            limit = RunLimit(self.watch, self.run_seconds)
            return DirectRunner(open_session(file, self.provider, self.threads), limit)
        limit = RunLimit(self.watch, FIRST * self.run_seconds)
        if self.provider == "tensorrt":
            return BoundRunner(self._open_tensorrt(file, precision, shape, sizes), sizes, limit=limit)
        chosen = {"enable_cuda_graph": int(self.captures)} | (HALF_OPTIONS if precision == "fp16" else {})
        opened = functools.partial(open_session, file, self.provider, self.threads, chosen)
        another = None if self.captures else opened
        return BoundRunner(opened(), sizes, graphs=self.captures, another=another, limit=limit)

    @property
    def captures(self) -> bool:
        """Whether sessions record CUDA graphs."""
        return self.provider == "cuda" and self.cuda_graphs

    @property
    def has_streams(self) -> bool:
        """Whether many waiting images run in streams: on a CPU with more than one thread."""
        return self.provider == "cpu" and self.threads > 1

    def in_one_thread(self) -> "Execution":
        """Returns the execution of one stream, which takes no turns."""
        return dataclasses.replace(self, threads=1, turns=Turns(watch=self.watch))

    def _open_tensorrt(
        self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]
    ) -> onnxruntime.InferenceSession:
        chosen = tensorrt.options(precision, shape, sizes)
        if self.engines:
            folder = tensorrt.engine_folder(self.engines, sha256(file), chosen, gpu_name(), tensorrt.version())
            if tensorrt.writable(folder):
                chosen |= tensorrt.cache_options(folder)
                return tensorrt.open_kept(folder, lambda: open_session(file, "tensorrt", self.threads, chosen))
        return open_session(file, "tensorrt", self.threads, chosen)


def open_session(
    source: Path | bytes, provider: Provider, threads: int, more: dict[str, Any] | None = None
) -> onnxruntime.InferenceSession:
    """Opens a model file, or its bytes, on one provider with `threads` CPU threads.

    `more` are options of the provider beside its usual ones. Raises ProviderError when ONNX Runtime put another
    provider first, and what ONNX Runtime raises on a bad file.
    """
    if provider == "tensorrt":
        # TensorRT has no option for it, and reads this as it compiles: 10-bit mantissas would fail the golden check
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # Threads spin within a run, and stop with it. One 5 ms run every 150 ms on two cores cost 59 ms of CPU time with
    # ONNX Runtime's default (spin on), 9 ms without spinning, 12 ms so.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    facts = PROVIDERS[provider]
    providers = [(facts.name, provider_options(provider, threads) | (more or {}))]
    providers += [(PROVIDERS[other].name, provider_options(other, threads)) for other in facts.fallbacks]
    model = source if isinstance(source, bytes) else str(source)
    # ONNX Runtime's own fallback prints, and goes on on the CPU, also when a GPU fails in the middle of a run
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if (got := session.get_providers()[0]) != facts.name:
        raise ProviderError(f"ONNX Runtime was asked for {facts.name} and fell back to {got}")
    return session


def provider_options(provider: Provider, threads: int, streams: int = 1) -> dict[str, Any]:
    """Returns what a session on the provider is opened with. `streams` are OpenVINO's runs side by side."""
    if provider != "openvino":
        return dict(PROVIDERS[provider].options)
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, where the CPU has it, fails the golden check
        "INFERENCE_NUM_THREADS": threads,  # OpenVINO's own; it knows nothing of ONNX Runtime's
        "NUM_STREAMS": streams,  # the batcher runs one batch at a time, so the service needs one
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


def gpu_name() -> str:
    """Returns the NVIDIA driver's name of the first GPU. Raises ProviderError."""
    driver, device, name = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.create_string_buffer(256)
    codes = (driver.cuInit(0), driver.cuDeviceGet(ctypes.byref(device), 0), driver.cuDeviceGetName(name, 256, device))
    if any(codes):
        raise ProviderError(f"the NVIDIA driver does not name its first GPU (cuDeviceGetName gave {codes})")
    return name.value.decode()
