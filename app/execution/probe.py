"""Which execution provider works on this machine.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session on a provider that cannot load prints
red errors and runs on the CPU in silence. So each provider is probed before a session asks for it.
"""

import contextlib
import ctypes
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime

from app.execution import tensorrt
from app.execution.provider import PROVIDERS, Provider
from app.execution.session import ProviderError, open_session
from training.system.cpu import CPUINFO, has_amx

logger = logging.getLogger(__name__)

BEFORE_CPU: tuple[Provider, ...] = ("cuda", "openvino")  # what auto tries; TensorRT compiles each model for minutes

# float32 [1] -> Identity -> float32 [1], opset 13, as onnx.helper serializes it: `app` does not depend on onnx
IDENTITY_MODEL = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class Fault:
    """Why a provider does not work. `device_present` tells a missing GPU from one that cannot be used."""

    reason: str
    device_present: bool = False


def choose_provider(
    requested: Provider | Literal["auto"], probe: Callable[[Provider], Fault | None] | None = None
) -> Provider:
    """Returns the provider to use.

    "auto" takes CUDA where the probe finds no fault, then OpenVINO, which is there only where somebody installed its
    build of ONNX Runtime on purpose, else the CPU. Raises ProviderError when the provider asked for has a fault.
    """
    if requested == "cpu":
        return requested
    for provider in BEFORE_CPU if requested == "auto" else (requested,):
        fault = (probe or find_fault)(provider)
        if fault is None:
            return provider
        if requested != "auto":
            raise ProviderError(f"RESNEXT_PROVIDER is {requested}, which does not work here: {fault.reason}")
        level = logging.WARNING if fault.device_present else logging.INFO
        logger.log(level, "not serving on %s: %s", provider, fault.reason)
    return "cpu"


def find_fault(provider: Provider, *, cpuinfo: Path = CPUINFO, available: Sequence[str] | None = None) -> Fault | None:
    """Tries a provider out, the cheapest test first and without noise. Returns None when a session really gets it.

    `available` are the names that ONNX Runtime was built with, by default those of this build.
    """
    name = PROVIDERS[provider].name
    available = onnxruntime.get_available_providers() if available is None else available
    if name not in available:
        hint = _openvino_hint(has_amx(cpuinfo)) if provider == "openvino" else ""
        return Fault(f"this build of ONNX Runtime has no {name}, it has {', '.join(available)}{hint}")
    if PROVIDERS[provider].nvidia:
        if reason := _driver_fault():
            return Fault(reason)
        if reason := _library_fault() or (tensorrt.find_fault() if provider == "tensorrt" else None):
            return Fault(f"there is a GPU, but its libraries are not complete: {reason}", device_present=True)
    try:
        open_session(IDENTITY_MODEL, provider, threads=1)
    except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
        return Fault(str(error), device_present=True)
    return None


def _openvino_hint(amx: bool) -> str:
    gain = ", which is twice as fast in INT8 on a CPU with AMX, as this one" if amx else ""
    return f" (requirements/serve-openvino.txt brings one that has{gain})"


def _driver_fault() -> str | None:
    """Asks the NVIDIA driver itself: cuInit and the number of devices."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded)"
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
