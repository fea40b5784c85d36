"""Which execution provider ONNX Runtime gets: only ever one that works.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session that asks for one that can not load
prints red errors and runs on the CPU in silence. So each is probed first, and asked for only after that.
"""

import contextlib
import ctypes
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

log = logging.getLogger(__name__)

EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
NVIDIA = ("cuda", "tensorrt")
OPTIONS: dict[str, dict[str, Any]] = {
    "cuda": {
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE: seconds for each new shape; DEFAULT: 4 to 50 times slower
        "use_tf32": 0,  # 10-bit mantissas would fail the golden check
        "arena_extend_strategy": "kSameAsRequested",  # doubling could leave no room for the next version in a swap
    }
}

# float32 [1] -> Identity -> float32 [1], opset 13, as onnx.helper serialises it: `app` does not depend on onnx
IDENTITY_MODEL = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


class ProviderError(Exception):
    """The execution provider that was asked for does not work here."""


@dataclass(frozen=True)
class Fault:
    """Why a provider does not work. `device_present` tells a missing GPU from one that can not be used."""

    reason: str
    device_present: bool = False


def choose_provider(requested: str, probe: Callable[[str], Fault | None] | None = None) -> str:
    """The provider to use: a key of EXECUTION_PROVIDERS.

    "auto" takes CUDA where the probe finds no fault, else the CPU; TensorRT is never chosen unasked, since it compiles
    each model for minutes. Raises ProviderError when the one asked for has a fault.
    """
    if requested == "cpu":
        return requested
    name = "cuda" if requested == "auto" else requested
    fault = (probe or find_fault)(name)
    if fault is None:
        return name
    if requested != "auto":
        raise ProviderError(f"RESNEXT_PROVIDER is {requested}, which does not work here: {fault.reason}")
    log.log(logging.WARNING if fault.device_present else logging.INFO, "serving on the CPU: %s", fault.reason)
    return "cpu"


def find_fault(name: str) -> Fault | None:
    """Tries a provider out, cheapest test first, without noise; None when a session really gets it."""
    execution_provider, available = EXECUTION_PROVIDERS[name], onnxruntime.get_available_providers()
    if execution_provider not in available:
        return Fault(f"this build of ONNX Runtime has no {execution_provider}, it has {', '.join(available)}")
    if name in NVIDIA:
        if reason := _driver_fault():
            return Fault(reason)
        if reason := _library_fault():
            return Fault(f"there is a GPU, but its libraries are not complete: {reason}", device_present=True)
    try:
        open_session(IDENTITY_MODEL, name, threads=1)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        return Fault(str(error), device_present=True)
    return None


def open_session(source: Path | bytes, name: str, threads: int) -> onnxruntime.InferenceSession:
    """A session of a model file (or its bytes) on one provider, with `threads` CPU threads.

    Raises ProviderError when ONNX Runtime put another provider first, and what ONNX Runtime raises on a bad file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # Threads spin within a run, and stop with it. One 5 ms run every 150 ms on two cores cost 59 ms of CPU time with
    # ONNX Runtime's default (spin on), 9 ms without spinning, 12 ms so.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    wanted = EXECUTION_PROVIDERS[name]
    providers: list[tuple[str, dict[str, Any]]] = [(wanted, OPTIONS.get(name, {}))]
    if name != "cpu":
        providers.append((EXECUTION_PROVIDERS["cpu"], {}))  # for the nodes that the first one lacks
    model = source if isinstance(source, bytes) else str(source)
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    if session.get_providers()[0] != wanted:
        raise ProviderError(f"ONNX Runtime was asked for {wanted} and fell back to {session.get_providers()[0]}")
    return session


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
