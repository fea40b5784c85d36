from tests.compose.engine import compose, inspect, url
from tests.compose.service import answered, ready
from tests.process import until


def drain() -> None:
    """A request gets its answer although its container is stopped meanwhile."""
    answer = answered(url(), lambda: compose("stop", "api"))
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert inspect("api")["State"]["ExitCode"] == 0
    compose("stop", "trainer")
    assert inspect("trainer")["State"]["ExitCode"] == 0
    compose("up", "--detach", "--no-build")
    until(ready, 60)
