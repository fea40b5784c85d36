import time

from tests.compose.engine import compose, healthy, say
from tests.compose.service import answers, get, ready
from tests.process import until


def again() -> None:
    """After `down` and `up` everything is still there, and nothing is trained again."""
    before, jobs = answers(), get("/train")["total"]
    compose("down")
    compose("up", "--detach", "--no-build")
    since = time.monotonic()
    until(ready, 120)
    say(f"ready {time.monotonic() - since:.1f} s after `up`")
    until(lambda: healthy("trainer"), 60)
    assert answers() == before
    assert get("/train")["total"] == jobs
    assert get("/health")["trainer"]["running"] == []
