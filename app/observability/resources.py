"""What the service's processes and the machine's GPUs use, and what there is, read when it is asked for."""

import contextlib
import ctypes
import functools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")  # the container's own, cgroup v2; "max" is none
NVML = "libnvidia-ml.so.1"  # comes with the driver


def serving_processes(folder: Path | None) -> list[int]:
    """This one, or all that share a folder of metrics: a live gauge's file has its process' id in its name."""
    if folder is None:
        return [os.getpid()]
    return sorted({int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")})


def process_metrics(pids: Iterable[int]) -> list[Metric]:
    """Memory and CPU time of each; of one that has just ended, nothing."""
    memory = GaugeMetricFamily("resnext_process_memory_bytes", "Resident memory of a serving process", labels=["pid"])
    cpu = CounterMetricFamily("resnext_process_cpu_seconds", "CPU time of a serving process", labels=["pid"])
    for pid in pids:
        try:
            # what stands before the bracket is a name, which may hold spaces
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        memory.add_metric([str(pid)], int(fields[21]) * PAGE_BYTES)
        cpu.add_metric([str(pid)], (int(fields[11]) + int(fields[12])) / TICKS)
    return [memory, cpu]


def room_metrics(folders: Mapping[str, Path], memory_max: Path = MEMORY_MAX) -> list[Metric]:
    """The container's memory limit, if any, and what is free on the disks of the folders that are there."""
    limit = GaugeMetricFamily("resnext_memory_limit_bytes", "Memory that the service's container may use")
    free = GaugeMetricFamily("resnext_disk_free_bytes", "Free on the disk of such a folder", labels=["folder"])
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, no limit
        limit.add_metric([], int(memory_max.read_text()))
    for name, folder in folders.items():
        with contextlib.suppress(OSError):  # the first upload, or the first job, makes it
            free.add_metric([name], shutil.disk_usage(folder).free)
    return [limit, free]


def gpu_metrics(library: str = NVML) -> list[Metric]:
    """Memory and load of each GPU that the NVIDIA driver shows; nothing where there is none."""
    used = GaugeMetricFamily("resnext_gpu_memory_used_bytes", "Memory in use on a GPU, by anyone", labels=["gpu"])
    total = GaugeMetricFamily("resnext_gpu_memory_total_bytes", "Memory of a GPU", labels=["gpu"])
    busy = GaugeMetricFamily("resnext_gpu_busy_ratio", "Part of the last moments in which a GPU ran", labels=["gpu"])
    if driver := _driver(library):
        for gpu, device in _devices(driver):
            memory, load = _Memory(), _Load()
            if not driver.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
                used.add_metric([gpu], memory.used)
                total.add_metric([gpu], memory.total)
            if not driver.nvmlDeviceGetUtilizationRates(device, ctypes.byref(load)):
                busy.add_metric([gpu], load.gpu / 100)
    return [used, total, busy]


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Load(ctypes.Structure):
    """nvmlUtilization_t, in percent."""

    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@functools.cache
def _driver(library: str) -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    return None if driver.nvmlInit_v2() else driver


def _devices(driver: ctypes.CDLL) -> Iterator[tuple[str, ctypes.c_void_p]]:
    count = ctypes.c_uint()
    if driver.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for index in range(count.value):
        device = ctypes.c_void_p()
        if not driver.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
            yield str(index), device
