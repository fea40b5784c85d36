import json

from tests.compose.engine import say, within
from tests.compose.service import answers, ready
from tests.process import until


def predict() -> None:
    until(ready, 60)
    found = answers()
    right = sum(name.startswith(f"{label}/") for name, label in found.items())
    say(f"{right} of {len(found)} right")
    assert right >= 45
    rows = within("trainer", "python", "-m", "training", "models", "list").decode().splitlines()
    assert ["1", "active"] in [row.split()[:2] for row in rows], rows
    jobs = json.loads(within("trainer", "python", "-m", "training", "jobs", "list", "--json"))
    assert jobs[-1]["state"] == "succeeded"
