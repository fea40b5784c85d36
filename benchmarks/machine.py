"""The machine, the versions, the commit and the date of a figure."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

LIBRARIES = ("tensorflow", "keras", "onnxruntime-gpu", "numpy", "pillow", "fastapi")


def machine(libraries: tuple[str, ...] = LIBRARIES) -> str:
    """Returns processor, cores, load, versions, commit and date in one line."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    processors = [line.split(": ")[1] for line in info if line.startswith("model name")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    gpus = "".join(f", {gpu}" for gpu in _gpus())
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)  # noqa: S607  whichever git there is
    return (
        f"{processors[0] if processors else platform.machine()}, {len(os.sched_getaffinity(0))} cores{gpus}, "
        f"load {os.getloadavg()[1]:.1f}; Python {platform.python_version()}, {versions}; "
        f"commit {git.stdout.strip() or 'none'}; {datetime.now(UTC):%Y-%m-%d}"
    )


def _gpus() -> list[str]:
    """Returns name and driver of each GPU; none without an NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
