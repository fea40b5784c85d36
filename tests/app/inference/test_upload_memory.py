from pathlib import Path

import pytest

from app.errors import UploadsFull
from app.inference import upload_memory
from app.inference.upload_memory import LONGEST_RETRY_S, SMALL_BYTES, STALLED_S, UploadMemory, usable_memory

MB = 10**6


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def retry_after(memory: UploadMemory, bytes: int) -> int:
    with pytest.raises(UploadsFull) as refused:
        memory.lease().take(bytes)
    headers = refused.value.headers
    assert headers
    return int(headers["Retry-After"])


def test_small_bodies_find_room_when_large_ones_do_not() -> None:
    memory = UploadMemory(100 * MB)
    large = memory.lease()
    large.take(70 * MB)
    with pytest.raises(UploadsFull, match="hold 70000000 of 75000000 bytes, there is no room for 6000000 more"):
        memory.lease().take(6 * MB)
    small = [memory.lease() for _ in range(28)]
    for lease in small:
        lease.take(SMALL_BYTES - 100)
    with pytest.raises(UploadsFull):
        memory.lease().take(SMALL_BYTES)
    for lease in (large, *small):
        lease.end()
        lease.end()
    assert memory.taken == 0


def test_retry_after_is_the_time_at_the_rate_of_late() -> None:
    clock = Clock()
    memory = UploadMemory(100 * MB, clock)
    held = memory.lease()
    held.take(75 * MB)
    assert retry_after(memory, 30 * MB) == STALLED_S
    for _ in range(20):
        clock.now += 1
        lease = memory.lease()
        lease.take(SMALL_BYTES)
        lease.end()
    assert retry_after(memory, 30 * MB) == 29  # 30 MB at 1 MiB a second
    clock.now += 5
    assert retry_after(memory, 75 * MB) == LONGEST_RETRY_S
    clock.now += 60
    assert retry_after(memory, 30 * MB) == STALLED_S


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_container_limits_the_memory(tmp_path: Path, file: str) -> None:
    machine = usable_memory(tmp_path)
    assert machine > MB
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    for content, expected in (("1000000\n", MB), ("max", machine), ("9223372036854771712", machine)):
        path.write_text(content)
        assert usable_memory(tmp_path) == expected


def test_what_large_bodies_took_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    monkeypatch.setattr(upload_memory, "trim_heap", lambda: trims.append(1))
    memory = UploadMemory(100 * MB)
    for _ in range(100):
        small = memory.lease()
        small.take(SMALL_BYTES)
        small.end()
    memory.trim()
    assert not trims
    large = memory.lease()
    large.take(40 * MB)
    large.end()
    memory.trim()
    memory.trim()
    assert len(trims) == 1
