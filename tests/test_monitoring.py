"""What Prometheus and Grafana are given: it names metrics that there are, fires when it should, and shows what it says.

With Debian's package `prometheus` the real ones read it; without it, what can be told from the files is told. Grafana
itself, and Prometheus of the version in docker-compose.yml, come in with `make compose-test`.
"""

import json
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from tests.app.network import SIZE, encoded, network, publish, random_images, repository_at
from tests.app.world import break_file
from tests.dashboard import FILE, dashboard, queries, targets
from tests.process import ROOT, answers, free_port, service, until
from tests.training.engine import Engine

FOLDER = ROOT / "monitoring"
RUNBOOK = (ROOT / "docs/monitoring.md").read_text()
# the table is held to what the service shows by tests/app/test_docs.py
METRICS = {
    name: set(filter(None, labels.split(",")))
    for name, labels in re.findall(r"^\| `(resnext_\w+)(?:{([\w,]+)})?` \|", RUNBOOK, re.MULTILINE)
}
OF_PROMETHEUS = {"instance", "job", "le", "alertname", "alertstate", "severity"}  # labels that it gives by itself
SCRAPE_S = 2
KEY = "a-key-of-the-test"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") or os.environ.get("REQUIRE_PROMETHEUS")),
    reason="needs Debian's package `prometheus`",
)

Loaded = dict[str, Any]  # Any: what a YAML or JSON file holds


def load(path: str) -> Loaded:
    return dict(yaml.safe_load((FOLDER / path).read_text()))


def named(text: str) -> set[str]:
    """Our metrics in a query; of a histogram, whatever series."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bresnext_\w+", text)}


def check_names(query: str) -> None:
    """Its metrics are there, and have the labels that it selects and sums by."""
    assert named(query) <= set(METRICS), query
    for name, selector in re.findall(r"\b(resnext_\w+)\{([^}]*)\}", re.sub(r'"[^"]*"', '""', query)):
        (metric,) = named(name)
        assert set(re.findall(r"(\w+)[=!]", selector)) <= METRICS[metric] | OF_PROMETHEUS, query
    there = OF_PROMETHEUS.union(*(METRICS[name] for name in named(query)))
    for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        assert set(labels.split(", ")) <= there, query


def rules() -> list[Loaded]:
    return [rule for group in load("alerts.yml")["groups"] for rule in group["rules"]]


def services() -> Loaded:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def test_prometheus_asks_the_service_with_its_secret() -> None:
    config = load("prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    secret = Path(job["authorization"]["credentials_file"])
    prometheus = services()["prometheus"]
    assert secret.parent == Path("/run/secrets")
    assert secret.name in prometheus["secrets"]
    mounted = {target for mount in prometheus["volumes"] for target in mount.split(":")[1:2]}
    assert {f"/etc/prometheus/{file}" for file in ("prometheus.yml", *config["rule_files"])} <= mounted


def test_every_alert_is_of_metrics_that_there_are_and_says_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        check_names(rule["expr"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        said = rule["annotations"]
        assert set(said) == {"summary", "description", "runbook"}
        if not rule["expr"].startswith("up{"):  # whose value is 0 or 1
            assert "$value" in said["description"], rule
        page, _, anchor = said["runbook"].partition("#")
        assert (page, anchor) == ("docs/monitoring.md", rule["alert"].lower())
    sections = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]


def test_every_alert_has_a_test_of_when_it_fires_and_of_when_it_does_not() -> None:
    tests = yaml.safe_load((ROOT / "tests/monitoring/alerts.yml").read_text())["tests"]
    cases = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert set(cases) == {(name, fires) for name in names for fires in (True, False)}


@needs_prometheus
def test_every_alert_fires_when_it_should_and_not_else() -> None:
    promtool("test", "rules", str(ROOT / "tests/monitoring/alerts.yml"))


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    places = [place for place, _ in targets()]
    assert len(set(places)) == len(places)
    for place, query in targets():
        check_names(query)
        assert 'instance=~"$instance"' in query, place
        for selector in re.findall(r"\bresnext_\w+(\{[^}]*instance|)", query):
            assert selector, f"{place} has a metric of all instances"


def test_the_dashboard_shows_every_metric() -> None:
    assert set().union(*(named(query) for _, query in targets())) == set(METRICS)


@needs_prometheus
def test_every_query_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries().values())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", str(file))


def test_the_dashboard_has_room_for_each_panel_and_says_what_it_shows() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] == "row":
            assert (place["x"], place["w"], place["h"], panel["panels"]) == (0, 24, 1, [])
        else:
            assert panel["description"]
            assert panel["targets"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)
            assert panel["type"] in ("stat", "table", "timeseries", "heatmap", "state-timeline")


def test_grafana_takes_the_dashboard_for_one_of_its_own() -> None:
    board = dashboard()
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", board["uid"])
    assert board["schemaVersion"] >= 36  # an older one names data sources, where this has objects
    assert isinstance(board["version"], int)
    assert "id" not in board  # Grafana's own, which a file must not name
    source, instance = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert (instance["name"], instance["type"], instance["multi"], instance["includeAll"]) == (
        "instance",
        "query",
        True,
        True,
    )
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", FILE.read_text())) <= known
    for part in (*board["panels"], *board["annotations"]["list"], instance):
        if part.get("type") != "row":
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    prometheus = services()["prometheus"]
    assert source["url"] == f"http://prometheus:{prometheus['ports'][0].rpartition(':')[2]}"
    chosen = dashboard()["templating"]["list"][0]["current"]
    assert (chosen["text"], chosen["value"]) == (source["name"], source["uid"])
    (provider,) = load("grafana/provisioning/dashboards/resnext.yml")["providers"]
    mounts = [mount.split(":") for mount in services()["grafana"]["volumes"]]
    mounted = {target: source for source, target, *_ in mounts}
    assert mounted[provider["options"]["path"]] == "./monitoring/grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./monitoring/grafana/provisioning"
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert (FOLDER / "grafana/dashboards" / Path(home).name).exists()


@needs_prometheus
def test_a_real_prometheus_that_scrapes_a_real_service_has_data_for_every_panel(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    repository = repository_at(tmp_path / "models")
    publish(repository, 1, model=network(1, fragile=True))
    settings = engine.settings | {"api_keys": KEY}
    try:
        engine.trains(engine.submit().id)
        with (
            service(tmp_path / "models", **settings) as (_, port),
            prometheus(tmp_path, port) as asked,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=30) as client,
        ):
            until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200), 60)
            send(client)
            until(lambda: asked('resnext_requests_total{route="/predict",status="200"}') == [100], 60)
            publish(repository, 2)
            until(lambda: client.get("/health").json()["model"]["version"] == 2, 60)
            break_file(repository, publish(repository, 3, activate=False))
            repository.activate(3)
            until(lambda: client.get("/health").json()["rollback"] is not None, 60)
            send(client)
            sent = time.time()
            until(lambda: asked("timestamp(up == 1)") > [sent + 2 * SCRAPE_S], 60)
            shown = named("\n".join(re.findall(r"^resnext_\w+", client.get("/metrics").text, re.MULTILINE)))
            empty = {place for place, query in queries().items() if not asked(query)}
            health = {rule["name"]: rule["health"] for rule in asked.rules()}
            firing = {rule["name"] for rule in asked.rules() if rule["state"] == "firing"}
    finally:
        engine.close()
    assert set(health.values()) == {"ok"}
    assert {"VersionTakenBack", "VersionNotLoaded"} <= firing
    unseen = set(METRICS) - shown
    assert unseen <= {"resnext_memory_limit_bytes", *(name for name in METRICS if "_gpu_" in name)}
    assert empty == {place for place, query in queries().items() if named(query) & unseen}


def send(client: httpx.Client) -> None:
    """A hundred images that are answered, one by one, and requests of each kind that is not."""
    for image in random_images(100):
        assert client.post("/predict", content=encoded(image)).status_code == 200
    white = encoded(np.full((SIZE, SIZE, 3), 255, np.uint8))
    client.post("/predict", content=white)  # a fragile model fails on it
    assert client.post("/predict", content=b"no image").status_code == 422
    assert client.get("/models/99").status_code == 404


class Prometheus:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/api/v1"

    def __call__(self, query: str) -> list[float]:
        """The query's values now, without those that are no number: of 0 / 0, where nothing happened."""
        answer = httpx.get(f"{self._address}/query", params={"query": query}, timeout=30)
        assert answer.status_code == 200, answer.text
        found = [float(series["value"][1]) for series in answer.json()["data"]["result"]]
        return [value for value in found if not math.isnan(value)]

    def rules(self) -> list[Loaded]:
        answer = httpx.get(f"{self._address}/rules", timeout=30)
        return [rule for group in answer.json()["data"]["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """Prometheus as monitoring/ has it, faster, and with the service on this port in place of the container."""
    config = load("prometheus.yml")
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    config["rule_files"] = [str(FOLDER / file) for file in config["rule_files"]]
    (job,) = config["scrape_configs"]
    (folder / "key").write_text(KEY)
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/-/ready", 200), 60)
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait()
