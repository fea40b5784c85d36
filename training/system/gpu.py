"""Whether this machine has an NVIDIA driver, without loading a library that takes seconds."""

import ctypes


def has_nvidia_driver() -> bool:
    """Whether the driver's library can be loaded. A GPU may be missing all the same."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
