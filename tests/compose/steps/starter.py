import contextlib
import subprocess
from collections.abc import Callable

from tests.compose.engine import compose, healthy, inspect, say, within
from tests.compose.service import at_work, get, over, reached, ready
from tests.process import until


def starter() -> None:
    """Containers end in every way while the starter trains; it continues each time, and is served in the end."""
    (job,) = get("/train")["jobs"]
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        ("the trainer is restarted", lambda: compose("restart", "trainer")),
        ("the trainer's processes are killed", lambda: within("trainer", "sh", "-c", "kill -9 -1 || true")),
        ("the trainer is recreated", lambda: compose("up", "--detach", "--no-build", "--force-recreate", "trainer")),
        ("the api is restarted", lambda: compose("restart", "api")),
    )
    for number, (what, happens) in enumerate(ways, start=1):
        seen = reached(job["id"], number)
        before = inspect("trainer")["State"]["StartedAt"]
        with contextlib.suppress(subprocess.CalledProcessError):  # the command itself is killed too
            happens()
        until(lambda: healthy("api") and healthy("trainer"), 120)
        if what.startswith("the trainer"):
            assert inspect("trainer")["State"]["StartedAt"] != before
        until(lambda: at_work(job["id"]), 60)
        now = get(f"/train/{job['id']}")
        assert (now["state"], now["attempt"], now["worker"]) == ("running", 1, "worker-0"), now
        assert len(now["progress"]["epochs"]) >= seen
        say(f"{what} after epoch {seen}")
    until(lambda: over(job["id"]), 1200)
    assert f"job {job['id']}: epoch" in compose("logs", "trainer")
    job = get(f"/train/{job['id']}")
    assert (job["state"], job["version"], job["attempt"]) == ("succeeded", 1, 1), job["reason"]
    assert len(job["progress"]["epochs"]) == job["config"]["epochs"]
    spent = {phase["name"]: phase["seconds"] for phase in job["progress"]["phases"]}
    say(f"test accuracy {job['verdict']['accuracy']:.4f}; seconds: {spent}")
    until(ready, 60)
