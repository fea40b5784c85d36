"""What Prometheus and Grafana are given names metrics that there are. `make compose-test` has Prometheus read it."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from app.observability.metrics import Metrics

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "monitoring"
METRICS = set(re.findall(r"^# TYPE (\w+) ", Metrics().render().decode(), re.MULTILINE))

Loaded = dict[str, Any]  # Any: what a YAML or JSON file holds


def load(path: str) -> Loaded:
    return dict(yaml.safe_load((FOLDER / path).read_text()))


def named(text: str) -> set[str]:
    """Our metrics in a query; of a histogram, whatever series."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bresnext_\w+", text)}


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


def test_every_alert_is_of_metrics_that_there_are_and_has_a_test() -> None:
    rules = [rule for group in load("alerts.yml")["groups"] for rule in group["rules"]]
    for rule in rules:
        assert named(rule["expr"]) <= METRICS, rule
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    tests = yaml.safe_load((ROOT / "tests/monitoring/alerts.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules}


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (FOLDER / "grafana/dashboards/resnext.json").read_text()
    assert named(text) <= METRICS
    for panel in json.loads(text)["panels"]:
        for target in panel.get("targets", []):
            assert 'instance=~"$instance"' in target["expr"], panel["title"]


def test_the_dashboard_has_room_for_each_panel_and_says_what_it_shows() -> None:
    panels = json.loads((FOLDER / "grafana/dashboards/resnext.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    prometheus = services()["prometheus"]
    assert source["url"] == f"http://prometheus:{prometheus['ports'][0].rpartition(':')[2]}"
    dashboard = (FOLDER / "grafana/dashboards/resnext.json").read_text()
    assert set(re.findall(r'"type": "prometheus", "uid": "(\w+)"', dashboard)) == {source["uid"]}
    (provider,) = load("grafana/provisioning/dashboards/resnext.yml")["providers"]
    mounts = [mount.split(":") for mount in services()["grafana"]["volumes"]]
    mounted = {target: source for source, target, *_ in mounts}
    assert mounted[provider["options"]["path"]] == "./monitoring/grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./monitoring/grafana/provisioning"
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert (FOLDER / "grafana/dashboards" / Path(home).name).exists()
