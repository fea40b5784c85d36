import pytest
from starlette.types import Scope

from app.observability.metrics import Metrics
from app.observability.observation import Dropped
from app.observability.requests import Requests
from tests.app.world import value

SCOPE: Scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}


@pytest.mark.parametrize(
    ("reasons", "status", "counted"),
    [
        ([], 200, None),
        (["rejected"], 503, "rejected"),
        (["expired"], 504, "expired"),
        ([], 0, "cancelled"),  # broken off before there was an answer
        ([], 499, "cancelled"),
        (["expired"], 499, "expired"),  # its client left after the deadline
    ],
)
def test_a_dropped_request_is_counted_once(reasons: list[Dropped], status: int, counted: Dropped | None) -> None:
    metrics = Metrics()
    requests = Requests(metrics)
    request = requests.begin(SCOPE)
    for reason in reasons:
        request.drop(reason)
    request.status = status
    requests.end(SCOPE, "/predict", request)
    text = metrics.render().decode()
    for reason in ("rejected", "expired", "cancelled"):
        assert value(text, f'resnext_requests_dropped_total{{reason="{reason}"}}') == (reason == counted)
    assert (
        value(text, f'resnext_requests_total{{method="POST",route="/predict",status="{status or 499}",version=""}}')
        == 1
    )
