import functools
import re

import httpx

from tests.compose.engine import Json, compose, container, docker, healthy, say, url
from tests.compose.service import keyed, ready
from tests.dashboard import queries
from tests.process import ROOT, until


def monitoring() -> None:
    """Prometheus reads the metrics with and without a key, and evaluates each alert and each query of the dashboard."""
    with keyed() as variables:
        for given in (variables, {}):
            compose("--profile", "monitoring", "up", "--detach", "--no-build", "--force-recreate", **given)
            until(ready, 60)
            until(lambda: healthy("prometheus"), 60)
            base = url("prometheus", 9090) + "/api/v1"
            until(functools.partial(scraped, base), 60)
    rules = [rule for group in asked(f"{base}/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == (ROOT / "monitoring/alerts.yml").read_text().count("alert:")
    until(lambda: all(rule["health"] == "ok" for g in asked(f"{base}/rules")["groups"] for rule in g["rules"]), 60)
    # counters and histograms need a minute of samples; others exist only where there is something to count
    absent = r"_total|_bucket|_count|resnext_job_|_gpu_|ALERTS"
    if docker("info", "--format", "{{.CgroupVersion}}") == "1":
        absent += "|_memory_limit_"  # which the service reads from cgroup v2 alone
    for place, query in queries().items():
        found = asked(f"{base}/query", query=query)["result"]
        say(f"{place}: {len(found)}")
        assert found or re.search(absent, query), query
    mounts = [f"--volume={ROOT}/monitoring:/monitoring:ro", f"--volume={ROOT}/tests/monitoring:/tests:ro"]
    run = ["run", "--no-TTY", "--no-deps", "--rm", *mounts, "--env=TMPDIR=/prometheus", "--entrypoint=promtool"]
    say(compose("--profile", "monitoring", *run, "prometheus", "test", "rules", "/tests/alerts.yml").strip())
    if container("grafana"):
        until(lambda: healthy("grafana"), 120)
        assert asked(url("grafana", 3000) + "/api/dashboards/uid/resnext", whole=True)["dashboard"]["title"]
    compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus", "grafana")


def scraped(base: str) -> bool:
    try:
        answer = httpx.get(f"{base}/targets", timeout=5)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and any(t["health"] == "up" for t in answer.json()["data"]["activeTargets"])


def asked(address: str, *, whole: bool = False, **parameters: str) -> Json:
    answer = httpx.get(address, params=parameters, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json() if whole else answer.json()["data"])
