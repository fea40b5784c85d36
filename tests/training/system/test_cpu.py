"""The share of the processor that others use while something is timed."""

from pathlib import Path

import numpy as np
import pytest

from training.exported.classifier import Classifier, Probabilities, Uint8Images, images_per_second
from training.system import cpu

TICKS = 100  # a second, of /proc/stat


def stat(path: Path, seconds: float, steal: float = 0) -> None:
    """Writes what /proc/stat says after all cores together have worked these seconds; idle time does not count."""
    path.write_text(f"cpu {seconds * TICKS:.0f} 0 0 999999 5 0 0 {steal * TICKS:.0f} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    stat(tmp_path / "stat", 50)
    return tmp_path / "stat"


def classifier(path: Path, seconds: float) -> tuple[list[int], Classifier]:
    """A classifier beside which others work for these seconds at each call."""
    calls: list[int] = []

    def classify(images: Uint8Images) -> Probabilities:
        calls.append(len(images))
        stat(path, 50 + len(calls) * seconds)
        return np.zeros((len(images), 2), np.float32)

    return calls, classify


@pytest.mark.parametrize(("seconds", "timed"), [(0, True), (1000, False)])
def test_a_speed_that_was_measured_beside_others_is_left_out(busy: Path, seconds: float, timed: bool) -> None:
    calls, classify = classifier(busy, seconds)
    speeds = images_per_second([classify], np.zeros((3, 8, 8, 3), np.uint8), busy)
    assert (speeds is not None) is timed
    assert set(calls) == {1}  # one image at a time


def test_stolen_time_is_others(busy: Path) -> None:
    with cpu.others(busy) as share:
        stat(busy, 50, steal=1000)
    assert share() > 1


def test_where_the_system_does_not_say_nobody_else_works(tmp_path: Path) -> None:
    with cpu.others(tmp_path / "missing") as share:
        pass
    assert share() < 0.5
