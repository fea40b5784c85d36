import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from app.observability.resources import gpu_metrics, process_metrics, room_metrics, serving_processes

needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="a stand-in for the driver has to be compiled")
# two GPUs; the second one does not report its load
DRIVER = """
typedef unsigned long long u64;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(u64)(index + 1); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, u64 *memory) {
  memory[0] = 80 * (u64)device; memory[1] = 50 * (u64)device; memory[2] = 30 * (u64)device; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, unsigned *load) {
  if ((u64)device == 2) return 3; load[0] = 75; load[1] = 10; return 0; }
"""


def shown(metrics: list[Metric]) -> dict[str, float]:
    """Returns the values by name and label."""
    return {" ".join([s.name, *s.labels.values()]): s.value for metric in metrics for s in metric.samples}


def compile_driver(folder: Path, source: str) -> None:
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source.encode(), check=True)


def shown_beside(libraries: Path) -> dict[str, float]:
    """Returns the GPUs that a process shows when it looks for shared libraries in this folder first."""
    code = (
        "from app.observability.resources import gpu_metrics; from tests.app.observability.test_resources import shown;"
        "print(shown(gpu_metrics()))"
    )
    found = {"LD_LIBRARY_PATH": str(libraries)}  # the loader reads it when a process starts
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | found, capture_output=True, check=True)
    metrics: dict[str, float] = ast.literal_eval(done.stdout.decode())
    return metrics


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
    """Returns resident memory in bytes, from another file than the one under test."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_processes_that_share_metrics_are_found_by_their_files(tmp_path: Path) -> None:
    for name in ("gauge_livesum_12.db", "gauge_livemax_12.db", "gauge_livesum_7.db", "counter_9.db"):
        (tmp_path / name).touch()
    assert serving_processes(tmp_path) == [7, 12]
    assert serving_processes(None) == [os.getpid()]


def test_the_memory_limit_is_the_containers_and_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert shown(room_metrics({}, limit)) == {}  # the host's own cgroup has no such file
    limit.write_text("max\n")
    assert shown(room_metrics({}, limit)) == {}
    limit.write_text("4294967296\n")
    assert shown(room_metrics({}, limit)) == {"resnext_memory_limit_bytes": 2**32}


def test_free_space_is_shown_for_folders_that_exist(tmp_path: Path) -> None:
    found = shown(room_metrics({"models": tmp_path, "datasets": tmp_path / "none"}, tmp_path / "none"))
    system = os.statvfs(tmp_path)
    assert found == {"resnext_disk_free_bytes models": pytest.approx(system.f_bavail * system.f_frsize, rel=0.05)}


def test_without_a_driver_there_are_no_gpus() -> None:
    assert shown(gpu_metrics("libnosuchdriver.so.1")) == {}


@needs_compiler
def test_a_driver_that_does_not_start_shows_no_gpus(tmp_path: Path) -> None:
    compile_driver(tmp_path, "int nvmlInitWithFlags(unsigned flags) { return 9; }")
    assert shown_beside(tmp_path) == {}


@needs_compiler
def test_gpus_are_read_from_the_driver(tmp_path: Path) -> None:
    compile_driver(tmp_path, DRIVER)
    assert shown_beside(tmp_path) == {
        "resnext_gpu_memory_used_bytes 0": 30,
        "resnext_gpu_memory_used_bytes 1": 60,
        "resnext_gpu_memory_total_bytes 0": 80,
        "resnext_gpu_memory_total_bytes 1": 160,
        "resnext_gpu_busy_ratio 0": 0.75,
    }
