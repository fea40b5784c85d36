"""The queries that Grafana's dashboard sends to Prometheus."""

import json
from collections.abc import Iterator
from typing import Any

from tests.process import ROOT

FILE = ROOT / "monitoring/grafana/dashboards/resnext.json"

Json = dict[str, Any]  # Any: JSON


def dashboard() -> Json:
    return dict(json.loads(FILE.read_text()))


def targets() -> Iterator[tuple[str, str]]:
    """Yields the place of each query, such as "Memory B" or "annotation Swaps", and the query as written."""
    loaded = dashboard()
    for panel in loaded["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in loaded["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def queries() -> dict[str, str]:
    """Returns each query by its place, with variables filled in for all instances and the shortest interval."""
    return {place: query.replace("$instance", ".*").replace("$__rate_interval", "1m") for place, query in targets()}
