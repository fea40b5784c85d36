"""Which precision is served."""

import numpy as np
import pytest

from app.errors import RunTimedOut
from app.execution.package import ModelError
from app.execution.session import Execution
from tests.app.execution.devices import Crowded, Device, Forecast, golden, load
from tests.app.network import SIZE, network, publish, random_images, reference
from training.contract.repository import ModelRepository


def test_auto_takes_the_precision_that_is_faster_here(repository: ModelRepository) -> None:
    fast_int8 = load(repository, publish(repository, model=network(slow=True), int8=network()))
    assert fast_int8.precision == "int8"
    assert fast_int8.measured.speeds["int8"] > fast_int8.measured.speeds["fp32"]
    slow_int8 = load(repository, publish(repository, int8=network(slow=True)))
    assert slow_int8.precision == "fp32"  # though the manifest says that it was three times as fast
    assert slow_int8.measured.speeds["fp32"] > slow_int8.measured.speeds["int8"]


def test_a_busy_machine_does_not_change_the_choice(repository: ModelRepository) -> None:
    version = publish(repository, model=network(slow=True), int8=network())
    assert load(repository, version, execution=Crowded()).precision == "int8"
    assert load(repository, version, execution=Crowded(threads=2)).precision == "int8"


def test_a_precision_that_is_asked_for_is_taken_or_missed(repository: ModelRepository) -> None:
    both = publish(repository, int8=network(slow=True))
    assert load(repository, both, precision="int8").precision == "int8"
    assert load(repository, both, precision="fp32").precision == "fp32"
    with pytest.raises(ModelError, match="RESNEXT_PRECISION is int8, version 2 has fp32"):
        load(repository, publish(repository), precision="int8")


def test_int8_is_held_to_its_own_answers(repository: ModelRepository, caplog: pytest.LogCaptureFixture) -> None:
    images = random_images(4)
    rounded = golden(probabilities_int8=reference(network(), images) + np.float32(0.05))  # another CPU's kernels
    assert "int8" in load(repository, publish(repository, int8=network(), golden=rounded)).measured.speeds
    broken = publish(repository, int8=network(1), golden=golden(probabilities_int8=reference(network(), images)))
    with pytest.raises(ModelError, match=r"within 0.1 of those that it was judged by"):
        load(repository, broken, precision="int8")
    assert load(repository, broken).precision == "fp32"
    assert "int8 of version 2 is left out: golden check" in caplog.text


def test_a_precision_whose_run_hangs_is_left_out(repository: ModelRepository) -> None:
    white = np.full((1, SIZE, SIZE, 3), 255, np.uint8)
    answers = reference(network(), white)
    kept = {"images": white, "probabilities": answers, "probabilities_int8": answers}
    version = publish(repository, int8=network(endless=True), golden=kept)
    execution = Execution(run_seconds=0.05)
    with execution.watch.watching():
        assert load(repository, version, execution=execution).precision == "fp32"
        with pytest.raises(RunTimedOut):
            load(repository, version, execution=execution, precision="int8")


def test_a_version_of_which_no_precision_is_fit_is_refused(repository: ModelRepository) -> None:
    wrong = reference(network(1), random_images(4))
    with pytest.raises(ModelError, match=r"within 0.0001 of Keras'"):
        load(
            repository,
            publish(repository, int8=network(), golden=golden(probabilities=wrong, probabilities_int8=wrong)),
        )


def test_auto_tries_what_can_win_on_the_provider(repository: ModelRepository) -> None:
    all_three = publish(repository, int8=network(), fp16=network())
    assert set(load(repository, all_three).measured.speeds) == {"int8", "fp32"}
    cuda, compiled = Device(), Device(provider="tensorrt")
    assert set(load(repository, all_three, execution=cuda).measured.speeds) == {"fp16", "fp32"}
    assert cuda.opened == [("fp16", True), ("fp32", True)]
    assert load(repository, all_three, execution=compiled).precision == "fp16"
    assert compiled.opened == [("fp16", False)]  # an engine is minutes
    assert load(repository, publish(repository, int8=network()), execution=Device()).precision == "fp32"
    assert load(repository, all_three, execution=Device(), precision="int8").precision == "int8"
    assert load(repository, all_three, precision="fp16").precision == "fp16"


@pytest.mark.parametrize(("speed", "chosen"), [(1.05, "fp32"), (1.2, "int8")])
def test_a_lower_precision_has_to_be_worth_its_accuracy(repository: ModelRepository, speed: float, chosen: str) -> None:
    timer = Forecast(lambda opened, n: n / (speed if opened.precision == "int8" else 1))
    version = publish(repository, int8=network())
    assert load(repository, version, execution=Execution(timer=timer)).precision == chosen


def test_only_what_may_be_served_has_to_be_right(repository: ModelRepository, caplog: pytest.LogCaptureFixture) -> None:
    """Golden images of float32 would take a start longer than all else."""
    images = random_images(4)
    wrong = golden(probabilities=reference(network(1), images), probabilities_int8=reference(network(), images))
    model = load(repository, publish(repository, model=network(slow=True), int8=network(), golden=wrong))
    assert model.precision == "int8"
    assert set(model.measured.speeds) == {"int8", "fp32"}
    assert "left out" not in caplog.text


def test_fp16_is_held_to_its_own_answers(repository: ModelRepository) -> None:
    answers = reference(network(), random_images(4))
    rounded = golden(probabilities_fp16=answers + np.float32(0.02))
    assert load(repository, publish(repository, fp16=network(), golden=rounded), precision="fp16").precision == "fp16"
    off = golden(probabilities_fp16=answers + np.float32(0.06))
    with pytest.raises(ModelError, match=r"within 0.05 of those that it was judged by"):
        load(repository, publish(repository, fp16=network(), golden=off), precision="fp16")


def test_tensorrt_takes_the_next_precision_where_the_first_is_not_fit(repository: ModelRepository) -> None:
    off = golden(probabilities_fp16=reference(network(1), random_images(4)))
    version, device = publish(repository, fp16=network(), golden=off), Device(provider="tensorrt")
    assert load(repository, version, execution=device).precision == "fp32"
    assert device.opened == [("fp16", False), ("fp32", False)]
