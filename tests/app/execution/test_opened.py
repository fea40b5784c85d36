import pytest

from app.execution.opened import Opened, Timer
from app.execution.provider import Provider
from app.execution.session import open_session
from app.execution.turns import Turns
from tests.app.execution.devices import Waiting
from tests.app.network import network, publish
from training.contract.repository import ModelRepository


@pytest.mark.parametrize(("provider", "counts"), [("cpu", False), ("openvino", True)])
def test_time_in_which_something_else_had_the_cores_counts_only_where_it_cannot_be_told(
    repository: ModelRepository, provider: Provider, counts: bool
) -> None:
    session = open_session(network().SerializeToString(), "cpu", 1)
    manifest = repository.manifest(publish(repository))
    opened = Opened(Waiting(session), manifest, "fp32", provider, Turns())  # waits 50 ms without a core
    fastest = min(Timer().seconds(opened, 1) for _ in range(5))
    assert (fastest > 0.05) == counts
