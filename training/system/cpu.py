"""The processor: which instructions it has, and whom it works for."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
STAT = Path("/proc/stat")


def has_int8_dot_product(machine: str = platform.machine(), cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor adds products of bytes without saturating (VNNI on x86); else weights have 7 bits."""
    return machine not in ("x86_64", "AMD64") or bool(_flags(cpuinfo) & {"avx512_vnni", "avx_vnni"})


def has_amx(cpuinfo: Path = CPUINFO) -> bool:
    """Whether it has a matrix unit for INT8. OpenVINO uses it; ONNX Runtime's own convolutions do not."""
    return "amx_int8" in _flags(cpuinfo)


@contextlib.contextmanager
def others(stat: Path = STAT) -> Iterator[Callable[[], float]]:
    """Yields a function that returns, after the block, the share of all cores that other processes used in it.

    The share is 0 where the system does not say. A virtual machine's stolen time counts as used by others.
    """
    begun, busy, own = time.monotonic(), _busy_seconds(stat), time.process_time()
    share = 0.0
    yield lambda: share
    theirs = _busy_seconds(stat) - busy - (time.process_time() - own)
    share = max(0.0, theirs / (time.monotonic() - begun) / (os.cpu_count() or 1))


def _busy_seconds(stat: Path) -> float:
    """Returns the seconds that all cores together have worked since the system's start."""
    try:
        user, nice, system, _, _, irq, soft_irq, steal, *_ = stat.read_text().split("\n", 1)[0].split()[1:]
    except (OSError, ValueError):
        return time.process_time()
    return sum(map(int, (user, nice, system, irq, soft_irq, steal))) / os.sysconf("SC_CLK_TCK")


def _flags(cpuinfo: Path) -> set[str]:
    """Returns the words of the file, among them the processor's flags; none where the system does not say."""
    try:
        return set(cpuinfo.read_text().split())
    except OSError:
        return set()
