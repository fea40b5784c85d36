"""The options of TensorRT and the folders of its engines. No TensorRT runs here."""

import fcntl
import logging
from pathlib import Path

import pytest

from app.execution import tensorrt
from app.execution.probe import find_fault
from training.contract.manifest import Precision
from training.system.locks import try_lock

SHAPE, SIZES = (224, 224, 3), [1, 2, 4, 8, 16, 32, 64, 128]


def test_one_profile_spans_the_sizes() -> None:
    options = tensorrt.options("fp32", SHAPE, SIZES)
    assert options["trt_profile_min_shapes"] == "image:1x224x224x3"
    assert options["trt_profile_opt_shapes"] == "image:16x224x224x3"
    assert options["trt_profile_max_shapes"] == "image:128x224x224x3"
    assert tensorrt.options("fp32", SHAPE, [1, 2, 6])["trt_profile_opt_shapes"] == "image:6x224x224x3"
    assert tensorrt.options("fp32", SHAPE, [32])["trt_profile_opt_shapes"] == "image:32x224x224x3"


@pytest.mark.parametrize(
    ("precision", "half", "int8"), [("fp32", False, False), ("fp16", True, False), ("int8", False, True)]
)
def test_a_kernel_is_no_coarser_than_the_file_was_judged_in(precision: Precision, half: bool, int8: bool) -> None:
    options = tensorrt.options(precision, SHAPE, SIZES)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (half, int8)


def test_engines_have_a_folder_of_their_own_and_share_the_timings(tmp_path: Path) -> None:
    options = tensorrt.cache_options(tmp_path / "engines" / "abc")
    assert options == {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": f"{tmp_path}/engines/abc",
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": f"{tmp_path}/engines",
    }


def test_whatever_makes_another_engine_makes_another_folder() -> None:
    def folder(
        digest: str = "a", precision: Precision = "fp16", sizes: list[int] = SIZES, gpu: str = "L4", release: int = 1
    ) -> Path:
        return tensorrt.engine_folder(Path("root"), digest, tensorrt.options(precision, SHAPE, sizes), gpu, release)

    others = [folder(digest="b"), folder(precision="fp32"), folder(sizes=[1]), folder(gpu="T4"), folder(release=2)]
    assert len({folder(), *others}) == 6
    assert folder() == folder()
    assert folder().parent == Path("root")


def test_a_place_that_can_not_be_written_is_told_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert tensorrt.writable(tmp_path / "engines" / "abc")
    with caplog.at_level(logging.WARNING):
        assert not tensorrt.writable(tmp_path / "file" / "abc")
    assert "TensorRT compiles again at each load" in caplog.text


class Compiler:
    """Stands in for a session: fails while the file lies in the folder."""

    def __init__(self, engine: Path, always: bool = False) -> None:
        self.engine, self.always, self.calls = engine, always, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.always or self.engine.exists():
            raise RuntimeError("could not deserialize engine from cache")
        return "session"


def test_half_an_engine_is_thrown_away_and_compiled_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "abc"
    folder.mkdir()
    (folder / "part_sm89.engine").write_bytes(b"half")
    compiler = Compiler(folder / "part_sm89.engine")
    assert tensorrt.open_kept(folder, compiler) == "session"
    assert (compiler.calls, list(folder.iterdir())) == (2, [])
    assert "could not deserialize engine from cache" in caplog.text


def test_processes_compile_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    folder.mkdir()

    def compile_alone() -> bool:
        with (tmp_path / "abc.lock").open() as other:
            return not try_lock(other.fileno(), fcntl.LOCK_EX)

    assert tensorrt.open_kept(folder, compile_alone)


def test_a_model_that_does_not_compile_is_tried_once(tmp_path: Path) -> None:
    compiler = Compiler(tmp_path / "none", always=True)
    with pytest.raises(RuntimeError, match="deserialize"):
        tensorrt.open_kept(tmp_path, compiler)
    assert compiler.calls == 1


def test_the_reason_names_the_library_and_what_brings_it() -> None:
    reason = tensorrt.find_fault()
    if reason is None:
        pytest.skip("TensorRT is installed here")
    assert "libnvinfer.so.10 cannot be loaded (pip install" in reason
    assert find_fault("tensorrt") is not None
