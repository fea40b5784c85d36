"""Which execution provider ONNX Runtime gets, only ever one that works, and how it is asked to run a model.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session that asks for one that can not load
prints red errors and runs on the CPU in silence. So each is probed first, and asked for only after that.
"""

import contextlib
import ctypes
import dataclasses
import functools
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from app.execution import tensorrt
from app.execution.measured import Measurements
from app.execution.runner import BoundRunner, DirectRunner, Runner
from app.execution.turns import Turns
from training.contract.manifest import Precision
from training.system.cpu import has_amx
from training.system.files import sha256

log = logging.getLogger(__name__)

EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
NVIDIA = ("cuda", "tensorrt")
# for the nodes that one lacks
FALLBACKS = {"cpu": (), "cuda": ("cpu",), "tensorrt": ("cuda", "cpu"), "openvino": ("cpu",)}
BEFORE_CPU = ("cuda", "openvino")  # what auto tries; TensorRT compiles each model for minutes
OPTIONS: dict[str, dict[str, Any]] = {
    "cuda": {
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE: seconds for each new shape; DEFAULT: 4 to 50 times slower
        "use_tf32": 0,  # 10-bit mantissas would fail the golden check
        "arena_extend_strategy": "kSameAsRequested",  # doubling could leave no room for the next version in a swap
    }
}

# of float16, on CUDA: without `use_tf32` its convolutions get no tensor cores either, and take 1.9 times as long on an
# H200; with the channels first 1.5 times
HALF_OPTIONS = {"use_tf32": 1, "prefer_nhwc": 1}

# float32 [1] -> Identity -> float32 [1], opset 13, as onnx.helper serialises it: `app` does not depend on onnx
IDENTITY_MODEL = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class Trial:
    """How `auto` finds the precision for an execution provider: which it considers, the lower first."""

    precisions: tuple[Precision, ...]
    batch: int = 1  # images in a timed run
    timed: bool = True  # else the first that is fit


TRIALS = {
    "cpu": Trial(("int8", "fp32")),  # fp16 is float32 with more to do here
    # no INT8 convolution: float32 with more to do; float16 pays in full batches, which are what counts on a GPU
    "cuda": Trial(("fp16", "fp32"), batch=16),
    "tensorrt": Trial(("fp16", "fp32"), timed=False),  # each engine is minutes of compiling
    "openvino": Trial(("int8", "fp32")),
}


class ProviderError(Exception):
    """The execution provider that was asked for does not work here."""


@dataclass(frozen=True)
class Fault:
    """Why a provider does not work. `device_present` tells a missing GPU from one that can not be used."""

    reason: str
    device_present: bool = False


@dataclass(frozen=True)
class Execution:
    """How models run in this process: the execution provider, a key of EXECUTION_PROVIDERS, and what goes with it.

    `threads` are the CPU's; `cuda_graphs` is for "cuda", `engines` the folder where "tensorrt" keeps what it compiles.
    The models share the `turns`, and what was `measured`, by network.
    """

    provider: str = "cpu"
    threads: int = 1
    cuda_graphs: bool = True
    engines: Path | None = None
    turns: Turns = field(default_factory=Turns)
    measured: Measurements = field(default_factory=Measurements)

    def open(self, file: Path, precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> Runner:
        """Opens a version's file for images of one shape, in batches of up to the last of the sizes.

        Raises ProviderError when the provider does not take it, and what ONNX Runtime raises on a bad file.
        """
        if self.provider not in NVIDIA:
            session = open_session(file, self.provider, self.threads)
            return DirectRunner(session)
        if self.provider == "tensorrt":
            return BoundRunner(self._open_tensorrt(file, precision, shape, sizes), sizes)
        chosen = {"enable_cuda_graph": int(self.captures)} | (HALF_OPTIONS if precision == "fp16" else {})
        opened = functools.partial(open_session, file, self.provider, self.threads, chosen)
        return BoundRunner(opened(), sizes, graphs=self.captures, another=None if self.captures else opened)

    @property
    def captures(self) -> bool:
        """Whether it records CUDA graphs."""
        return self.provider == "cuda" and self.cuda_graphs

    def alone(self) -> "Execution":
        """In one thread, which takes no turns, where threads are what it computes with; else as it is."""
        several = self.provider == "cpu" and self.threads > 1
        return dataclasses.replace(self, threads=1, turns=Turns()) if several else self

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


def choose_provider(requested: str, probe: Callable[[str], Fault | None] | None = None) -> str:
    """The provider to use: a key of EXECUTION_PROVIDERS.

    "auto" takes CUDA where the probe finds no fault, then OpenVINO, which is only there where its build of ONNX Runtime
    was installed on purpose, else the CPU. Raises ProviderError when the one asked for has a fault.
    """
    if requested == "cpu":
        return requested
    for name in BEFORE_CPU if requested == "auto" else (requested,):
        fault = (probe or find_fault)(name)
        if fault is None:
            return name
        if requested != "auto":
            raise ProviderError(f"RESNEXT_PROVIDER is {requested}, which does not work here: {fault.reason}")
        log.log(logging.WARNING if fault.device_present else logging.INFO, "not serving on %s: %s", name, fault.reason)
    return "cpu"


def find_fault(name: str) -> Fault | None:
    """Tries a provider out, cheapest test first, without noise; None when a session really gets it."""
    execution_provider, available = EXECUTION_PROVIDERS[name], onnxruntime.get_available_providers()
    if execution_provider not in available:
        hint = ""
        if name == "openvino":
            gain = ", which is twice as fast in INT8 on a CPU with AMX, as this one" if has_amx() else ""
            hint = f" (requirements/serve-openvino.txt brings one that has{gain})"
        return Fault(f"this build of ONNX Runtime has no {execution_provider}, it has {', '.join(available)}{hint}")
    if name in NVIDIA:
        if reason := _driver_fault():
            return Fault(reason)
        if reason := _library_fault() or (tensorrt.find_fault() if name == "tensorrt" else None):
            return Fault(f"there is a GPU, but its libraries are not complete: {reason}", device_present=True)
    try:
        open_session(IDENTITY_MODEL, name, threads=1)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        return Fault(str(error), device_present=True)
    return None


def open_session(
    source: Path | bytes, name: str, threads: int, more: dict[str, Any] | None = None
) -> onnxruntime.InferenceSession:
    """A session of a model file (or its bytes) on one provider, with `threads` CPU threads.

    `more` are options of this provider beside OPTIONS. Raises ProviderError when ONNX Runtime put another provider
    first, and what ONNX Runtime raises on a bad file.
    """
    if name == "tensorrt":
        # TensorRT has no option for it, and reads this as it compiles: 10-bit mantissas would fail the golden check
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # Threads spin within a run, and stop with it. One 5 ms run every 150 ms on two cores cost 59 ms of CPU time with
    # ONNX Runtime's default (spin on), 9 ms without spinning, 12 ms so.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = [(EXECUTION_PROVIDERS[name], provider_options(name, threads) | (more or {}))]
    providers += [(EXECUTION_PROVIDERS[other], provider_options(other, threads)) for other in FALLBACKS[name]]
    model = source if isinstance(source, bytes) else str(source)
    # without its fallback, which prints, and goes on on the CPU, also when a GPU fails in the middle of a run
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != (wanted := EXECUTION_PROVIDERS[name]):
        raise ProviderError(f"ONNX Runtime was asked for {wanted} and fell back to {session.get_providers()[0]}")
    return session


def gpu_name() -> str:
    """What the NVIDIA driver calls the first GPU."""
    driver, device, name = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.create_string_buffer(256)
    codes = (driver.cuInit(0), driver.cuDeviceGet(ctypes.byref(device), 0), driver.cuDeviceGetName(name, 256, device))
    if any(codes):
        raise ProviderError(f"the NVIDIA driver does not name its first GPU (cuDeviceGetName gave {codes})")
    return name.value.decode()


def provider_options(name: str, threads: int) -> dict[str, Any]:
    """What a session on that provider is opened with."""
    if name != "openvino":
        return OPTIONS.get(name, {})
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, where the CPU has it, fails the golden check
        "INFERENCE_NUM_THREADS": threads,  # of its own; it knows nothing of ONNX Runtime's
        "NUM_STREAMS": 1,  # the batcher runs one batch at a time
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


def _driver_fault() -> str | None:
    """Asks the NVIDIA driver itself: cuInit and the number of devices."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 can not be loaded)"
    if code := driver.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit gave {code})"
    count = ctypes.c_int()
    if code := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver does not count its GPUs (cuDeviceGetCount gave {code})"
    return None if count.value else "the NVIDIA driver sees no GPU"


def _library_fault() -> str | None:
    """Loads the CUDA libraries that pip installed; `preload_dlls` prints what is missing and goes on."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    missing = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return f"{'; '.join(missing)} (pip install 'resnext-service[cuda]')" if missing else None
