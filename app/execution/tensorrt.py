"""TensorRT: how it is asked for, and where the engines that it compiles for minutes are kept."""

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
FAVOURED_BATCH = 16  # one engine serves all sizes, and is made for this one: a full batch is what a busy service runs

log = logging.getLogger(__name__)


def find_fault() -> str | None:
    """Loads TensorRT, from pip's package where that is installed; None when it is there."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")  # loads what it brings; the loader does not look there by itself
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return f"TensorRT 10 is not there: {name} can not be loaded (pip install 'tensorrt-cu13-libs<11')"
    return None


def version() -> int:
    """Of the TensorRT that `find_fault` has loaded, as 101301."""
    found: int = ctypes.CDLL(LIBRARIES[0]).getInferLibVersion()
    return found


def options(precision: Precision, shape: tuple[int, int, int], sizes: Sequence[int]) -> dict[str, str | bool]:
    """The execution provider's options for images of one shape in batches of these sizes, ascending.

    Float16 is allowed where the file was judged in it, and nowhere else: `fp32` has to stay within 1e-4.
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
    """More of them: keep engines in the folder, and what layers took beside it, since other versions have the same."""
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(engines.parent),
    }


def engine_folder(root: Path, digest: str, chosen: dict[str, str | bool], gpu: str, release: int) -> Path:
    """The folder for the engines of one file (its SHA-256), these options, this GPU and these libraries.

    An engine of another one of them would be refused, or would answer for another model.
    """
    identity: list[Any] = [digest, chosen, gpu, release, onnxruntime.__version__]  # Any: what JSON writes
    return root / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def writable(folder: Path) -> bool:
    """Makes the folder; False, with a warning, where nothing can be kept."""
    reason = "it is not this user's to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return True
    except OSError as error:
        reason = str(error)
    log.warning("TensorRT compiles anew at each load, nothing can be kept in %s: %s", folder, reason)
    return False


def open_kept(engines: Path, open_session: Callable[[], T]) -> T:
    """What `open_session` gives; once more without the engines that are kept where it fails with them.

    A crash may have left half of one, and no version is bad for that. Among processes one compiles, and the others wait
    for what it keeps. Raises what `open_session` raises.
    """
    with exclusive(engines.with_suffix(".lock")):
        try:
            return open_session()
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            if not any(engines.glob("*.engine")):
                raise
            log.warning("TensorRT does not take what is kept in %s, and compiles anew: %s", engines, error)
        shutil.rmtree(engines)
        engines.mkdir()
        return open_session()
