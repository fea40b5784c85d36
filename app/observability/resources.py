"""The use of memory, processors, disks and GPUs, and their limits, read at each scrape."""

import contextlib
import ctypes
import functools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")  # the container's own, in cgroup v2; "max" is no limit
NVML = "libnvidia-ml.so.1"  # comes with the driver


def serving_processes(folder: Path | None) -> list[int]:
    """Returns this process, or all that share a folder of metrics: a gauge's file has the process' id in its name."""
    if folder is None:
        return [os.getpid()]
    return sorted({int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")})


def process_metrics(pids: Iterable[int]) -> list[Metric]:
    """Returns memory and CPU time of each process; leaves out one that has just ended."""
    memory = GaugeMetricFamily("resnext_process_memory_bytes", "Resident memory of a serving process", labels=["pid"])
    cpu = CounterMetricFamily("resnext_process_cpu_seconds", "CPU time of a serving process", labels=["pid"])
    for pid in pids:
        try:
            # the text before the bracket holds a name, which may have spaces
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        memory.add_metric([str(pid)], int(fields[21]) * PAGE_BYTES)
        cpu.add_metric([str(pid)], (int(fields[11]) + int(fields[12])) / TICKS)
    return [memory, cpu]


def room_metrics(folders: Mapping[str, Path], memory_max: Path = MEMORY_MAX) -> list[Metric]:
    """Returns the container's memory limit, if any, and the free space on the disks of those folders that exist."""
    limit = GaugeMetricFamily("resnext_memory_limit_bytes", "Memory that the service's container may use")
    free = GaugeMetricFamily("resnext_disk_free_bytes", "Free bytes on the disk of a folder", labels=["folder"])
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no limit
        limit.add_metric([], int(memory_max.read_text()))
    for name, folder in folders.items():
        with contextlib.suppress(OSError):  # the first upload or the first job makes the folder
            free.add_metric([name], shutil.disk_usage(folder).free)
    return [limit, free]


def gpu_metrics(library: str = NVML) -> list[Metric]:
    """Returns memory and load of each GPU that NVIDIA's driver reports; nothing where there is no driver."""
    used = GaugeMetricFamily("resnext_gpu_memory_used_bytes", "Memory in use on a GPU, by anyone", labels=["gpu"])
    total = GaugeMetricFamily("resnext_gpu_memory_total_bytes", "Memory of a GPU", labels=["gpu"])
    busy = GaugeMetricFamily("resnext_gpu_busy_ratio", "Share of the last moments in which a GPU ran", labels=["gpu"])
    if nvml := _nvml(library):
        for gpu, device in _devices(nvml):
            with contextlib.suppress(nvml.NVMLError):
                memory = nvml.nvmlDeviceGetMemoryInfo(device)
                used.add_metric([gpu], memory.used)
                total.add_metric([gpu], memory.total)
            with contextlib.suppress(nvml.NVMLError):  # some GPUs do not report their load
                busy.add_metric([gpu], nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
    return [used, total, busy]


@functools.cache
def _nvml(library: str) -> ModuleType | None:
    """Returns NVIDIA's bindings, ready to use; None where the driver is missing or does not start."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return None
    import pynvml  # takes 0.1 s, and is of no use without the driver

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return cast(ModuleType, pynvml)


def _devices(nvml: ModuleType) -> Iterator[tuple[str, object]]:
    """Yields the number and the handle of each GPU; leaves out one that cannot be reached."""
    with contextlib.suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):
                yield str(index), nvml.nvmlDeviceGetHandleByIndex(index)
