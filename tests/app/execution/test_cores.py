import os
from pathlib import Path

import pytest

from app.execution.cores import usable_cores


@pytest.mark.parametrize(
    ("content", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("nonsense", None), ("max 100000", None)]
)
def test_quota(tmp_path: Path, content: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cores(tmp_path / "cpu.max") == (expected or len(os.sched_getaffinity(0)))


def test_quota_of_a_big_machine_is_cut_by_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("102400000 100000")
    assert usable_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))


def test_no_cgroup(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))
