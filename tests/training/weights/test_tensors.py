import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.process import ROOT
from tests.training.weights.files import parameters, raw, tensor, written
from training.weights import tensors as module
from training.weights.tensors import TensorsError, open_tensors, write_tensors

TWO = tensor("F32", [2], 0, 8)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is 0 bytes long"),
    "seven bytes": (b"1234567", "it is 7 bytes long"),
    "header beyond the file": (raw(b"{}", length=1000), "invalid header length"),
    "header of gigabytes": (raw(b"{}", length=5 << 30), "a header of more than 1048576 bytes"),
    "header of all bits": (raw(b"{}", length=2**64 - 1), "a header of more than 1048576 bytes"),
    "header of 60 MB": (raw(b"{" + b" " * 60_000_000 + b"}"), "a header of more than 1048576 bytes"),
    "no JSON": (raw(b"{nothing}"), "is damaged: invalid JSON in header"),
    "no UTF-8": (raw(b'{"\xff":1}'), "is damaged: invalid UTF-8"),
    "deep": (raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "recursion limit exceeded"),
    "overlap": (raw({"a": TWO, "b": tensor("F32", [2], 4, 12)}, bytes(12)), "invalid offset for tensor `[ab]`"),
    "the same bytes": (raw({"a": TWO, "b": TWO}, bytes(8)), "invalid offset for tensor `[ab]`"),
    "hole": (raw({"a": TWO, "b": tensor("F32", [2], 12, 20)}, bytes(20)), "invalid offset for tensor `[ab]`"),
    "bytes behind": (raw({"a": TWO}, bytes(9)), "file not fully covered"),
    "cut off": (raw({"a": TWO}, bytes(7)), "file not fully covered"),
    "backwards": (raw({"a": tensor("F32", [2], 8, 0)}, bytes(8)), "invalid offset for tensor `a`"),
    "negative": (raw({"a": tensor("F32", [2], -8, 0)}, bytes(8)), "invalid value: integer `-8`"),
    "shape of other bytes": (raw({"a": tensor("F32", [3], 0, 8)}, bytes(8)), "invalid shape, data type, or offset"),
    "shape that overflows": (raw({"a": tensor("F32", [2**33, 2**33], 0, 8)}, bytes(8)), "overflow computing buffer"),
    "another type": (raw({"a": tensor("I32", [2], 0, 8)}, bytes(8)), "should have tensors of F32 or F16.*'a I32'"),
    "no type": (raw({"a": tensor("F33", [2], 0, 8)}, bytes(8)), "unknown variant `F33`"),
    "twice": (raw(b'{"a":%b,"a":%b}' % ((json.dumps(TWO).encode(),) * 2), bytes(8)), "these more often: 'a'"),
    "a number of 5000 digits": (
        raw(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":%b}}' % (b"1" * 5000), bytes(8)),
        "is damaged",
    ),
    "a .pth file": (b"PK\x03\x04" + bytes(100), r"a zip archive, as PyTorch's \.pth files are"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(100), r"a pickle, as PyTorch's older \.pth files are"),
    "a page": (b"\n<!DOCTYPE html><html><body>404", "a page of HTML or XML"),
    "an answer": (b'{"error": "Repository not found"}', "a text in JSON"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 100\n", "a pointer of Git LFS"),
    "Keras' weights": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "noise": (bytes(range(255, 0, -1)), "it is something else, or has a header of more than"),
}


def test_what_was_written_is_read_without_the_counters(tmp_path: Path) -> None:
    expected = parameters()
    with open_tensors(written(tmp_path / "f", expected)) as tensors:
        assert set(tensors) == set(tensors.shapes) == set(expected)
        assert len(tensors) == len(expected)
        for name, values in expected.items():
            assert tensors[name].dtype == np.float32
            np.testing.assert_array_equal(tensors[name], values)
        assert "bn1.num_batches_tracked" not in tensors


def test_half_precision_is_widened(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", {"a": np.array([1.5, -2], np.float16)})
    with open_tensors(tmp_path / "f") as tensors:
        assert tensors["a"].dtype == np.float32
        assert tensors["a"].tolist() == [1.5, -2]


def test_a_file_that_is_written_is_as_open_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    written(tmp_path / "f", parameters())
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_damaged_or_none_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    content, words = HOSTILE[kind]
    (tmp_path / "w.safetensors").write_bytes(content)
    with (
        pytest.raises(TensorsError, match=rf"the file .*{words}"),
        open_tensors(tmp_path / "w.safetensors", "the file"),
    ):
        pass


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    write_tensors(tmp_path / "f", {"a": np.array([1, value, 2], np.float32)})
    with (
        open_tensors(tmp_path / "f", "the file") as tensors,
        pytest.raises(TensorsError, match="the file: a should be finite, 1 of its 3 values are not"),
    ):
        tensors["a"]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    for path, words in ((tmp_path / "pipe", "is no file"), (tmp_path, "is no file"), (tmp_path / "x", "there is none")):
        with pytest.raises(TensorsError, match=words), open_tensors(path):
            pass


def test_a_file_is_refused_for_its_size_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "f", parameters())
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TensorsError, match="f should have at most 1000 bytes, it has "), open_tensors(tmp_path / "f"):
        pass


def test_a_tensor_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors(tmp_path / "f", {"a": np.zeros(5, np.float16), "b": np.zeros(4, np.float32)})
    monkeypatch.setattr(module, "MAX_TENSOR_BYTES", 16)
    with pytest.raises(TensorsError, match="at most 16 bytes, larger: 'a'"), open_tensors(tmp_path / "f"):
        pass


MEASURE = """
import resource, sys
from training.weights.tensors import TensorsError, open_tensors
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        with open_tensors(path) as tensors:
            len(tensors)
    except TensorsError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_whatever_the_header_says(tmp_path: Path) -> None:
    contents = {str(i): content for i, (content, _) in enumerate(HOSTILE.values())}
    for count in (17_000, 200_000):  # as many as a header may have, and what safetensors needs 150 MB for
        entries = (b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(count))
        contents[f"{count} tensors"] = raw(b"{" + b",".join(entries) + b"}")
    paths = [tmp_path / name for name in contents]
    for path in paths:
        path.write_bytes(contents[path.name])
    with (tmp_path / "sparse").open("wb") as file:
        file.write((5 << 30).to_bytes(8, "little") + b"{")
        file.truncate(6 << 30)
    command = [sys.executable, "-c", MEASURE, *map(str, paths), str(tmp_path / "sparse")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB
