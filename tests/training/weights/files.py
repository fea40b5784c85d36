"""Files of tensors: small networks in torchvision's layout, and files that are none."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.contract.architecture import Architecture
from training.weights.layout import expected_shapes
from training.weights.tensors import write_tensors

TINY = Architecture(depths=(1, 2), cardinality=2, base_width=2, stem_width=4)


def parameters(architecture: Architecture = TINY, classes: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Returns random parameters of a network; variances are positive."""
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(architecture, classes)
    return {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


def written(path: Path, tensors: dict[str, NDArray[np.float32]]) -> Path:
    """Writes the parameters with PyTorch's counters, as a published file has them."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for name in tensors
        if name.endswith("running_mean")
    }
    write_tensors(path, tensors | counters)
    return path


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Returns the bytes of a file with this header, which may be as wrong as it likes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    """Returns the header's entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
