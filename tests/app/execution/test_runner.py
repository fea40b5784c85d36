"""Batch sizes, buffers and threads: all that a device needs but the device, which is the CPU here."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import RunTimedOut
from app.execution.probe import find_fault
from app.execution.runner import BoundRunner, DirectRunner, RunLimit, fitting
from app.execution.session import Execution, open_session
from app.watch import Kind, Watch
from tests.app.network import network, random_images, reference
from tests.process import until
from training.contract.manifest import Precision


def bound(sizes: list[int], *, graphs: bool = False, fragile: bool = False) -> BoundRunner:
    session = open_session(network(fragile=fragile).SerializeToString(), "cpu", 1)
    return BoundRunner(session, sizes, "cpu", graphs=graphs)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 20])
def test_answers_are_the_sessions_for_any_number_of_images(n: int) -> None:
    images = random_images(n, seed=n)
    answers = bound([4, 1, 8]).run(images)
    assert answers.dtype == np.float32
    assert len(answers) == n
    np.testing.assert_allclose(answers, reference(network(), images), atol=1e-6)


def test_only_the_sizes_are_run_and_each_keeps_its_buffers() -> None:
    runner = bound([1, 4])
    for n in (1, 3, 2, 4, 1, 6):
        runner.run(random_images(n))
    bindings = runner.bindings
    assert sorted(bindings) == [1, 4]
    addresses = {size: (b.input.data_ptr(), b.output.data_ptr()) for size, b in bindings.items()}
    runner.run(random_images(4, seed=1))
    assert {size: (b.input.data_ptr(), b.output.data_ptr()) for size, b in runner.bindings.items()} == addresses
    assert [list(bindings[size].input.shape()) for size in (1, 4)] == [[1, 16, 16, 3], [4, 16, 16, 3]]


def test_rows_that_fill_up_are_black_and_not_what_ran_before() -> None:
    runner = bound([4], fragile=True)
    white = np.full((4, 16, 16, 3), 255, np.uint8)
    with pytest.raises(Exception, match="idx=255 must be within"):
        runner.run(white)
    assert len(runner.run(random_images(1))) == 1  # a white one that was left in the buffer would fail again


def test_answers_stay_the_callers() -> None:
    runner = bound([2])
    first = runner.run(random_images(2, seed=1))
    kept = first.copy()
    assert not np.array_equal(runner.run(random_images(2, seed=2)), kept)
    np.testing.assert_array_equal(first, kept)


def test_images_that_lie_apart_in_memory_are_read_right() -> None:
    apart = random_images(8)[::2]
    np.testing.assert_allclose(bound([4]).run(apart), reference(network(), apart), atol=1e-6)


@pytest.mark.parametrize("images", [random_images(2).astype(np.float32), random_images(2)[:, :8]])
def test_what_is_no_image_is_refused(images: NDArray[np.uint8]) -> None:
    """An OrtValue would take 64 bytes of anything for 64 bytes of its own type."""
    with pytest.raises(ValueError, match=r"images should be uint8 \[16, 16, 3\], they are"):
        bound([2]).run(images)


def test_many_threads_get_their_own_answers_from_the_one_thread_that_runs() -> None:
    session, threads = open_session(network().SerializeToString(), "cpu", 1), set[str]()
    inner = session.run_with_iobinding

    def watched(*arguments: object) -> None:
        threads.add(threading.current_thread().name)
        inner(*arguments)

    session.run_with_iobinding = watched
    runner = BoundRunner(session, [1, 2, 4], "cpu")
    batches = [random_images(1 + seed % 4, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(runner.run, batches))
    for images, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer, reference(network(), images), atol=1e-6)
    assert threads == {"device_0"}


def test_each_size_is_a_graph_of_its_own() -> None:
    runner, plain = bound([1, 4], graphs=True), bound([1])
    for n in (1, 4):
        runner.run(random_images(n))
    plain.run(random_images(1))
    ids = {size: b.options.get_run_config_entry("gpu_graph_id") for size, b in runner.bindings.items()}
    assert ids == {1: "1", 4: "4"}  # 0 is ONNX Runtime's own
    with pytest.raises(RuntimeError):
        plain.bindings[1].options.get_run_config_entry("gpu_graph_id")


def test_without_graphs_each_size_can_have_a_session_of_its_own() -> None:
    """One session would plan its convolutions anew, for 0.2 s, each time that another size comes."""
    opened = []

    def another() -> Any:  # Any: onnxruntime ships no types
        opened.append(open_session(network().SerializeToString(), "cpu", 1))
        return opened[-1]

    first = another()
    runner = BoundRunner(first, [1, 2, 4], "cpu", another=another)
    for n in (1, 4, 1, 2, 3, 4):
        images = random_images(n, seed=n)
        np.testing.assert_allclose(runner.run(images), reference(network(), images), atol=1e-6)
    assert runner.session is first
    assert {size: b.session for size, b in runner.bindings.items()} == dict(zip((1, 4, 2), opened, strict=True))


def test_its_thread_ends_with_it() -> None:
    runner = bound([1])
    runner.run(random_images(1))
    (thread,) = runner._thread._threads
    del runner
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_direct_runs_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(network().SerializeToString())
    session, images = open_session(path, "cpu", 1), random_images(3)
    np.testing.assert_allclose(DirectRunner(session).run(images), reference(network(), images), atol=1e-6)
    assert [DirectRunner(session).rows(n) for n in (1, 3)] == [1, 3]


@pytest.mark.parametrize("kind", ["direct", "bound"])
def test_a_run_over_its_limit_is_ended_and_the_next_one_is_not(kind: str) -> None:
    watch, session = Watch(), open_session(network(endless=True).SerializeToString(), "cpu", 1)
    limit = RunLimit(watch, seconds=0.05)
    runner = DirectRunner(session, limit) if kind == "direct" else BoundRunner(session, [1], "cpu", limit=limit)
    white, dark = np.full((1, 16, 16, 3), 255, np.uint8), random_images(1)
    with watch.watching():
        with pytest.raises(RunTimedOut, match=r"^a run of 1 images was ended after 0.2 s$"):
            runner.run(white, 0.2)
        np.testing.assert_allclose(runner.run(dark, 0.2), reference(network(), dark), atol=1e-6)
    assert watch.overdue() == []


def test_a_run_whose_time_is_not_known_gets_a_second_more_for_each_image() -> None:
    counted: list[Kind] = []
    watch, session = Watch(counted.append), open_session(network(endless=True).SerializeToString(), "cpu", 1)
    with watch.watching(), pytest.raises(RunTimedOut, match=r"^a run of 1 images was ended after 1.05 s$"):
        DirectRunner(session, RunLimit(watch, seconds=0.05)).run(np.full((1, 16, 16, 3), 255, np.uint8))
    until(lambda: counted == ["load"])  # the live version goes on: it needs no restart if this one cannot be ended


def test_a_run_that_fails_by_itself_says_why() -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        bound([1], fragile=True).run(np.full((1, 16, 16, 3), 255, np.uint8), 10)


def test_fitting() -> None:
    assert [fitting([1, 2, 4, 6], n) for n in range(8)] == [1, 1, 2, 4, 4, 6, 6, 6]


@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "captured"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_a_gpu_says_the_same(tmp_path: Path, precision: Precision, tolerance: float, graphs: bool) -> None:
    if fault := find_fault("cuda"):
        pytest.skip(fault.reason)
    path = tmp_path / "model.onnx"
    path.write_bytes(network().SerializeToString())
    runner = Execution("cuda", cuda_graphs=graphs).open(path, precision, (16, 16, 3), [1, 2, 4])
    for seed, n in enumerate((1, 4, 3, 1, 9, 2, 4)):
        images = random_images(n, seed)
        np.testing.assert_allclose(runner.run(images), reference(network(), images), atol=tolerance)
