"""What this machine's processor has instructions for."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def has_int8_dot_product(machine: str = platform.machine(), cpuinfo: Path = CPUINFO) -> bool:
    """Whether it adds products of bytes without saturating (VNNI on x86): else weights have 7 bits."""
    return machine not in ("x86_64", "AMD64") or bool(_flags(cpuinfo) & {"avx512_vnni", "avx_vnni"})


def has_amx(cpuinfo: Path = CPUINFO) -> bool:
    """Whether it has a matrix unit for INT8. OpenVINO uses it, ONNX Runtime's own convolutions do not."""
    return "amx_int8" in _flags(cpuinfo)


def _flags(cpuinfo: Path) -> set[str]:
    """None where the system does not say."""
    try:
        return set(cpuinfo.read_text().split())
    except OSError:
        return set()
