"""TensorRT, untried on real hardware: its options, and the folder of its engines, which take minutes to compile."""

import contextlib
import ctypes
import hashlib
import importlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime

from training.contract.manifest import INPUT_NAME, Precision
from training.system.locks import exclusive

T = TypeVar("T")

LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")  # what ONNX Runtime 1.31 is linked with
FAVOURED_BATCH = 16  # one engine serves all sizes and is tuned for this one: a busy service runs full batches

logger = logging.getLogger(__name__)


def find_fault() -> str | None:
    """Loads TensorRT, from pip's package where that is installed. Returns why it is not there, or None."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")  # loads its own libraries, which the system's loader does not find
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return f"TensorRT 10 is not there: {name} cannot be loaded (pip install 'tensorrt-cu13-libs<11')"
    return None


def version() -> int:
    """Returns the version of the TensorRT that `find_fault` has loaded, as 101301."""
    found: int = ctypes.CDLL(LIBRARIES[0]).getInferLibVersion()
    return found


def options(precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> dict[str, str | bool]:
    """Returns the execution provider's options for images of one shape in batches of these sizes, ascending.

    Float16 is allowed only where the file was judged in it: `fp32` has to stay within 1e-4.
    """
    image = "x".join(map(str, shape))
    favoured = max((size for size in sizes if size <= FAVOURED_BATCH), default=sizes[0])
    return {
        "trt_fp16_enable": precision == "fp16",
        "trt_int8_enable": precision == "int8",
        "trt_profile_min_shapes": f"{INPUT_NAME}:{sizes[0]}x{image}",
        "trt_profile_opt_shapes": f"{INPUT_NAME}:{favoured}x{image}",
        "trt_profile_max_shapes": f"{INPUT_NAME}:{sizes[-1]}x{image}",
    }


def cache_options(engines: Path) -> dict[str, str | bool]:
    """Returns the options that keep engines in the folder, and the timings of layers beside it, for all versions."""
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(engines.parent),
    }


def engine_folder(root: Path, digest: str, chosen: dict[str, str | bool], gpu: str, release: int) -> Path:
    """Returns the folder for the engines of one file (its SHA-256), these options, this GPU and these libraries.

    Where one of these differs, TensorRT would refuse the engine, or the engine would answer for another model.
    """
    identity: list[Any] = [digest, chosen, gpu, release, onnxruntime.__version__]  # Any: what JSON writes
    return root / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def writable(folder: Path) -> bool:
    """Makes the folder. Returns whether engines can be kept there, and warns where they cannot."""
    reason = "it is not this user's to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return True
    except OSError as error:
        reason = str(error)
    logger.warning("TensorRT compiles again at each load, nothing can be kept in %s: %s", folder, reason)
    return False


def open_kept(engines: Path, open_session: Callable[[], T]) -> T:
    """Returns what `open_session` opens; where that fails with the kept engines, tries once more without them.

    A crash may have left half an engine, which is no fault of the version. One process compiles while the others wait
    for the engines that it keeps. Raises what `open_session` raises.
    """
    with exclusive(engines.with_suffix(".lock")):
        try:
            return open_session()
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            if not any(engines.glob("*.engine")):
                raise
            logger.warning("TensorRT refuses what is kept in %s and compiles again: %s", engines, error)
        shutil.rmtree(engines)
        engines.mkdir()
        return open_session()
