import os
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from app.observability.resources import gpu_metrics, process_metrics, room_metrics, serving_processes

# two GPUs, the second of which does not tell its load
DRIVER = """
typedef unsigned long long u64;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(u64)(index + 1); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, u64 *memory) {
  memory[0] = 80 * (u64)device; memory[1] = 50 * (u64)device; memory[2] = 30 * (u64)device; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, unsigned *load) {
  if ((u64)device == 2) return 3; load[0] = 75; load[1] = 10; return 0; }
"""


def shown(metrics: list[Metric]) -> dict[str, float]:
    """Value by name and label."""
    return {" ".join([s.name, *s.labels.values()]): s.value for metric in metrics for s in metric.samples}


def test_a_process_that_is_gone_is_left_out() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    found = shown(process_metrics([os.getpid(), ended.pid]))
    assert list(found) == [
        f"resnext_process_memory_bytes {os.getpid()}",
        f"resnext_process_cpu_seconds_total {os.getpid()}",
    ]
    assert found[f"resnext_process_memory_bytes {os.getpid()}"] == pytest.approx(resident(), rel=0.05)


def resident() -> int:
    """Bytes, by another file than the one that is read."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_processes_that_share_metrics_are_found_by_their_files(tmp_path: Path) -> None:
    for name in ("gauge_livesum_12.db", "gauge_livemax_12.db", "gauge_livesum_7.db", "counter_9.db"):
        (tmp_path / name).touch()
    assert serving_processes(tmp_path) == [7, 12]
    assert serving_processes(None) == [os.getpid()]


def test_the_memory_limit_is_the_containers_and_of_none_nothing_is_said(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert shown(room_metrics({}, limit)) == {}  # the host's own cgroup has no such file
    limit.write_text("max\n")
    assert shown(room_metrics({}, limit)) == {}
    limit.write_text("4294967296\n")
    assert shown(room_metrics({}, limit)) == {"resnext_memory_limit_bytes": 2**32}


def test_free_space_is_told_of_folders_that_are_there(tmp_path: Path) -> None:
    found = shown(room_metrics({"models": tmp_path, "datasets": tmp_path / "none"}, tmp_path / "none"))
    system = os.statvfs(tmp_path)
    assert found == {"resnext_disk_free_bytes models": pytest.approx(system.f_bavail * system.f_frsize, rel=0.05)}


def test_without_a_driver_there_are_no_gpus() -> None:
    assert shown(gpu_metrics("libnosuchdriver.so.1")) == {}


@pytest.mark.skipif(not shutil.which("cc"), reason="a stand-in for the driver has to be compiled")
def test_gpus_are_read_from_the_driver(tmp_path: Path) -> None:
    library = tmp_path / "libdriver.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=DRIVER.encode(), check=True)
    assert shown(gpu_metrics(str(library))) == {
        "resnext_gpu_memory_used_bytes 0": 30,
        "resnext_gpu_memory_used_bytes 1": 60,
        "resnext_gpu_memory_total_bytes 0": 80,
        "resnext_gpu_memory_total_bytes 1": 160,
        "resnext_gpu_busy_ratio 0": 0.75,
    }
