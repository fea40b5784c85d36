"""Files of tensors (.safetensors), read with bounded memory. A file that is damaged, hostile or none at all is refused.

The package safetensors checks a header as a whole: offsets in order, without overlaps and holes, shapes that fit their
bytes, the end of the file. It takes headers of 100 MB, for which it needs twelve times as much memory, keeps one of two
tensors of the same name, and says of other kinds of files only that their header is too large. That is checked here,
and that all values are finite floats.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any  # a handle of safetensors, which is written in Rust and has no types

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from training.errors import TrainingError, few, words_of

MAX_FILE_BYTES = 2 * 1024**3  # ResNeXt-101 (32x8d) has 356 MB
MAX_TENSOR_BYTES = 256 * 1024**2  # a head of 21,000 classes has 172 MB; each tensor is read as a whole
MAX_HEADER_BYTES = 1024**2  # its header has 59 KB
LENGTH_BYTES = 8  # the header's length, little-endian, before the header
NAME_SHOWN = 120  # characters; a hostile one has a megabyte
FLOAT_BYTES = 4
DTYPES = ("F32", "F16")
COUNTER = ".num_batches_tracked"  # PyTorch counts each BatchNorm's steps; nothing depends on it

# what people have in place of a file of tensors, by its first bytes
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive, as PyTorch's .pth files are",
    b"\x80": "a pickle, as PyTorch's older .pth files are",
    b"version https://git-lfs": "a pointer of Git LFS, and not the file that it points to",
    b"<": "a page of HTML or XML, as a server's error is",
    b"{": "a text in JSON",
    b"\x89HDF": "an HDF5 file, as Keras' weights are",
    b"\x1f\x8b": "a gzip archive",
    b"GGUF": "a GGUF file",
}


class TensorsError(TrainingError):
    """A file of tensors that cannot be used. The message names the file, and the tensor that it is about."""


class Tensors(Mapping[str, NDArray[np.float32]]):
    """The tensors of an open file by their names, in float32, read one at a time. PyTorch's counters are left out.

    Reading a tensor raises TensorsError where a value is not finite.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], file: Any, called: str) -> None:
        self.shapes = MappingProxyType(shapes)
        self._file = file
        self._called = called

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self.shapes:
            raise KeyError(name)
        values: NDArray[np.float32] = self._file.get_tensor(name).astype(np.float32, copy=False)
        if bad := values.size - int(np.count_nonzero(np.isfinite(values))):
            raise TensorsError(f"{self._called}: {name} should be finite, {bad} of its {values.size} values are not")
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@contextlib.contextmanager
def open_tensors(path: Path, called: str | None = None) -> Iterator[Tensors]:
    """Opens a file of tensors and checks its header. `called` is its name in messages. Raises TensorsError, OSError."""
    called = called or str(path)
    header_bytes = _check_beginning(path, called)
    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        reason = words_of(error).removeprefix("Error while deserializing header: ")
        raise TensorsError(f"{called} is damaged: {reason}") from None
    with file:
        _check_names(path, header_bytes, called)
        yield Tensors(_shapes(file, called), file, called)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file of tensors. PyTorch's loaders take it for one of theirs."""
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors keeps others from reading it, whatever the umask says


def _check_beginning(path: Path, called: str) -> int:
    """Returns the length of the header. Raises TensorsError unless the file can be one of tensors."""
    if not path.is_file():
        raise TensorsError(
            f"{called} should be a file of tensors, {'it is no file' if path.exists() else 'there is none'}"
        )
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise TensorsError(f"{called} should have at most {MAX_FILE_BYTES} bytes, it has {size}")
    with path.open("rb") as file:
        beginning = file.read(64)
    length = int.from_bytes(beginning[:LENGTH_BYTES], "little")
    if len(beginning) > LENGTH_BYTES and length <= MAX_HEADER_BYTES and beginning[LENGTH_BYTES:][:1] == b"{":
        return length
    raise TensorsError(f"{called} should be a safetensors file, it is {_kind(beginning, size)}")


def _kind(beginning: bytes, size: int) -> str:
    """Returns what a file is that cannot be one of tensors."""
    if size <= LENGTH_BYTES:
        return f"{size} bytes long"
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    unknown = f"something else, or has a header of more than {MAX_HEADER_BYTES} bytes"
    return next((kind for magic, kind in OTHER_KINDS.items() if start.startswith(magic)), unknown)


def _check_names(path: Path, header_bytes: int, called: str) -> None:
    """Raises TensorsError when two tensors have the same name."""
    with path.open("rb") as file:
        file.seek(LENGTH_BYTES)
        header = file.read(header_bytes)
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        twice.extend(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)

    try:
        json.loads(header, object_pairs_hook=note)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits where safetensors reads none
        raise TensorsError(f"{called} is damaged: its header is no JSON: {error}") from None
    if twice:
        raise TensorsError(f"{called} should have each tensor once, it has these more often: {few_names(twice)}")


def _shapes(file: Any, called: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors but the counters. Raises TensorsError for other types and for large ones."""
    shapes: dict[str, tuple[int, ...]] = {}
    others, large = [], []
    for name in file.keys():  # noqa: SIM118  no mapping
        if name.endswith(COUNTER):
            continue
        view = file.get_slice(name)
        shapes[name] = tuple(view.get_shape())
        if (dtype := view.get_dtype()) not in DTYPES:
            others.append(f"{name} {dtype}")
        if math.prod(shapes[name]) > MAX_TENSOR_BYTES // FLOAT_BYTES:
            large.append(name)
    if others:
        raise TensorsError(f"{called} should have tensors of {' or '.join(DTYPES)}, it has {few_names(others)}")
    if large:
        raise TensorsError(
            f"{called} should have tensors of at most {MAX_TENSOR_BYTES} bytes, larger: {few_names(large)}"
        )
    return shapes


def few_names(names: list[str]) -> str:
    """Returns the first of the names that a file has, each cut off where it is long, and how many more there are."""
    return few([name[:NAME_SHOWN] for name in names])
