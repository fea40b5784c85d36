import signal
from pathlib import Path

import httpx
import pytest

from app.api.access.reach import addresses_of, beyond_this_machine, scope_without_key, warning
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve, client_of
from tests.process import answers, service, until


@pytest.mark.parametrize(
    ("address", "beyond"),
    [
        ("127.0.0.1", False),
        ("127.8.9.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("/run/resnext.sock", False),
        ("\0resnext", False),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:0.0.0.0", True),
        ("::ffff:10.0.0.1", True),
        ("10.0.0.1", True),
        ("192.0.2.1", True),
        ("fe80::1%eth0", True),
        ("a.name.that.is.not.resolved", True),
        ("", True),
    ],
)
def test_which_addresses_others_can_reach(address: str, beyond: bool) -> None:
    assert beyond_this_machine(["127.0.0.1", address]) == ([address] if beyond else [])


def test_a_name_is_what_it_resolves_to() -> None:
    assert beyond_this_machine(addresses_of("localhost")) == []
    assert beyond_this_machine(addresses_of("0.0.0.0")) == ["0.0.0.0"]
    assert addresses_of("no.such.host.invalid") == ["no.such.host.invalid"]


def test_one_address_that_others_can_reach_decides() -> None:
    assert scope_without_key(["127.0.0.1", "::1"], insecure=False) == "admin"
    assert scope_without_key(["127.0.0.1", "::"], insecure=False) == "predict"
    assert scope_without_key(["127.0.0.1", "::"], insecure=True) == "admin"


def test_the_warning_says_what_is_open_and_the_way_out() -> None:
    assert warning(["127.0.0.1", "::1"], insecure=True) is None
    line = warning(["127.0.0.1", "0.0.0.0"], insecure=False)
    assert line
    assert line.startswith("listening on 0.0.0.0 without API keys: everybody may classify, and nobody may train")
    assert "RESNEXT_INSECURE=true" in line
    assert "everybody who reaches 0.0.0.0 may train" in (warning(["0.0.0.0"], insecure=True) or "")


@pytest.mark.anyio
async def test_without_keys_where_others_can_reach_it_only_predict_is_open(serve: Serve) -> None:
    async with serve(host="0.0.0.0") as (client, _):
        for path in ("/models", "/metrics", "/v2", "/health/live", "/docs", "/"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/predict")).status_code == 503  # there is no model
        for method, path in (
            ("POST", "/train"),
            ("PUT", "/datasets/a"),
            ("POST", "/models/1/activate"),
            ("DELETE", "/models/1"),
            ("GET", "/train"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
            assert "RESNEXT_INSECURE=true" in answer.json()["detail"]
    async with serve(host="0.0.0.0", insecure=True) as (client, _):
        assert (await client.get("/train")).status_code in (200, 503)
    async with serve(host="0.0.0.0", insecure=True, api_keys="secret") as (client, _):
        assert (await client.get("/train")).status_code == 401


@pytest.mark.anyio
async def test_the_sockets_decide_and_not_the_setting() -> None:
    for addresses, status in ((["0.0.0.0"], 403), (["127.0.0.1", "::1"], 404)):
        app = create_app(Settings(provider="cpu"), addresses)
        async with client_of(app) as client:
            assert (await client.delete("/datasets/none-such")).status_code == status


def test_a_start_that_others_can_reach_warns_in_one_line(tmp_path: Path) -> None:
    """Bound to all addresses, since that is what it is about; it is asked on the loopback address."""
    with service(tmp_path, host="0.0.0.0") as (process, port):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/models", 200))
        answer = httpx.post(f"{url}/models/1/activate")
        assert answer.status_code == 403
        assert "server" not in answer.headers
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    (line,) = (line for line in log.splitlines() if "WARNING" in line and "nothing is served" not in line)
    assert "listening on 0.0.0.0 without API keys" in line
