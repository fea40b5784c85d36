"""A load from end to end, and what it measures."""

import numpy as np
import pytest

from app.execution.opened import Opened
from app.execution.package import ModelError
from app.execution.session import Execution
from tests.app.execution.devices import Device, Forecast, golden, load
from tests.app.network import LABELS, SIZE, network, publish, random_images, reference
from training.contract.repository import ModelRepository


def test_loads_verified_and_warm(repository: ModelRepository) -> None:
    model = load(repository, publish(repository))
    images = random_images(9, seed=5)
    np.testing.assert_allclose(model.run(images), reference(network(0), images), atol=1e-6)
    assert (model.version, model.labels, model.shape) == (1, LABELS, (SIZE, SIZE, 3))
    assert model.measured.alone.batch in model.measured.alone.seconds
    assert min(model.measured.alone.seconds) == 1


def test_max_batch_by_hand_and_bounded_by_the_queue(repository: ModelRepository) -> None:
    version = publish(repository)
    assert load(repository, version, max_batch=6).measured.alone.batch == 6
    assert max(load(repository, version, limit=4).measured.alone.seconds) <= 4


def test_a_cpu_pads_nothing(repository: ModelRepository) -> None:
    model = load(repository, publish(repository))
    assert model.runner.sizes is None
    assert [model.padded(n) for n in (1, 3, 7)] == [1, 3, 7]


def test_a_device_pads_to_sizes_that_are_warm(repository: ModelRepository) -> None:
    model = load(repository, publish(repository), execution=Device(), max_batch=6)
    assert list(model.measured.alone.seconds) == [1, 2, 4, 6]
    assert [model.padded(n) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    images = random_images(5, seed=5)
    np.testing.assert_allclose(model.run(images), reference(network(0), images), atol=1e-6)


def test_a_measured_max_batch_is_one_of_the_sizes(repository: ModelRepository) -> None:
    model = load(repository, publish(repository), execution=Device(), limit=20)
    assert model.runner.sizes == [1, 2, 4, 8, 16, 20]
    assert model.measured.alone.batch in model.measured.alone.seconds
    assert set(model.measured.alone.seconds) <= set(model.runner.sizes)


def test_each_size_of_a_device_has_to_pass_the_golden_check(repository: ModelRepository) -> None:
    version = publish(repository)
    with pytest.raises(ModelError, match="they differ by 1"):
        load(repository, version, execution=Device(wrong=2), max_batch=8)


def test_a_version_that_can_not_be_captured_runs_without_graphs(
    repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(broken=2)
    model = load(repository, publish(repository), execution=device, max_batch=4)
    assert device.opened == [("fp32", True), ("fp32", False)]
    assert "version 1 runs without CUDA graphs: operation not permitted when stream is capturing" in caplog.text
    np.testing.assert_allclose(model.run(random_images(2)), reference(network(0), random_images(2)), atol=1e-6)


def test_without_graphs_what_fails_is_refused_at_once(repository: ModelRepository) -> None:
    device = Device(cuda_graphs=False, wrong=2)
    with pytest.raises(ModelError):
        load(repository, publish(repository), execution=device, max_batch=4)
    assert device.opened == [("fp32", False)]


def test_as_many_images_as_there_are_streams_run_in_them(repository: ModelRepository) -> None:
    version = publish(repository)
    model = load(repository, version, execution=Execution(threads=3))
    assert model.streams
    assert model.streams.count == 3
    assert model.measured.crowd.batch in model.measured.crowd.seconds
    assert set(model.measured.alone.seconds) <= {1, 2}  # so many run in all threads, at most: three have a stream each
    images = random_images(3, seed=6)
    np.testing.assert_allclose(model.run(images, alone=False), reference(network(0), images), atol=1e-6)
    by_hand = load(repository, version, execution=Execution(threads=3), max_batch=6)
    assert (by_hand.measured.alone.batch, by_hand.measured.crowd.batch) == (6, 6)


def test_one_thread_has_no_streams(repository: ModelRepository) -> None:
    assert load(repository, publish(repository)).streams is None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_is_measured_once(
    repository: ModelRepository, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its later versions are checked, and run as the first one was seen to run best."""
    asked = set[int]()

    def seconds(opened: Opened, n: int) -> float:
        asked.add(opened.manifest.version)
        return (2e-3 if opened.precision == "fp32" else 1e-3) * float(n**0.9)

    execution = Execution(threads=threads, timer=Forecast(seconds))
    config = {"architecture": {"depths": [1]}}
    first = load(repository, publish(repository, int8=network(), config=config), execution=execution)
    again = load(repository, publish(repository, 1, int8=network(1), config=config), execution=execution)
    assert asked == {1}
    assert again.measured == first.measured
    images = random_images(3)
    np.testing.assert_allclose(again.run(images, alone=False), reference(network(1), images), atol=1e-6)
    load(repository, publish(repository, int8=network(), config={"architecture": {"depths": [2]}}), execution=execution)
    assert asked == {1, 3}
    wrong = golden(probabilities_int8=reference(network(1), random_images(4)))
    broken = publish(repository, int8=network(), golden=wrong, config=config)
    assert load(repository, broken, execution=execution).precision == "fp32"
    assert "int8 of version 4 is left out: golden check" in caplog.text
    assert asked == {1, 3, 4}  # of float32 nothing more was known than that it is slower
