import json

import httpx

from tests.compose.engine import compose, inspect, url, within
from tests.compose.service import KEY, get, keyed, ready
from tests.process import until


def secrets() -> None:
    """A key from a file is asked for, and can be seen nowhere."""
    with keyed() as variables:
        compose("up", "--detach", "--no-build", "--force-recreate", "api", **variables)
        until(ready, 60)
        assert httpx.get(url() + "/train").status_code == 401
        assert get("/train", authorization=f"Bearer {KEY}")["total"] > 0
        assert KEY not in json.dumps(inspect("api"))
        assert KEY.encode() not in within("api", "sh", "-c", "cat /proc/*/environ || true")
    compose("up", "--detach", "--no-build", "--force-recreate", "api")
    until(ready, 60)
