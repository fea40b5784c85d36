import pytest

from app.api.access.browsers import Hosts
from tests.app.conftest import Serve

ORIGIN = "https://page.example"
OURS = Hosts(["api.example", "*.cluster.example"], [ORIGIN])


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:8000",
        "LOCALHOST.",
        "a.localhost:8000",
        "127.0.0.1:8000",
        "10.1.2.3",
        "[::1]:8000",
        "[::1]",
        "api:8000",
        "api.example",
        "API.example:443",
        "a.cluster.example",
        "a.b.cluster.example.:8000",
    ],
)
def test_names_that_no_stranger_can_point_here(host: str) -> None:
    assert OURS.refuse({"host": host}) is None
    assert OURS.doubt({"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "api.example.evil.example",
        "notapi.example",
        "cluster.example",
        "evilcluster.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:127.0.0.1",
        "[evil.example]",
        "evil.example@127.0.0.1",
    ],
)
def test_any_other_name_may_be_a_strangers(host: str) -> None:
    assert OURS.refuse({"host": host}) == f"this service is not {host!r}"
    assert Hosts([], []).refuse({"host": host}) is None  # no names were set
    assert Hosts([], ["*"]).doubt({"host": host}) == (
        f"it came for the host {host!r}, which RESNEXT_TRUSTED_HOSTS does not name"
    )


@pytest.mark.parametrize(
    ("host", "origin", "doubted"),
    [
        ("localhost:8000", "http://localhost:8000", False),
        ("localhost", "http://localhost:80", False),
        ("api.example", "https://api.example", False),
        ("127.0.0.1:8000", ORIGIN, False),
        ("localhost:8000", "http://localhost:3000", True),
        ("localhost:8000", "http://127.0.0.1:8000", True),
        ("127.0.0.1:8000", "https://evil.example", True),
        ("127.0.0.1:8000", "null", True),
        ("127.0.0.1:8000", "", True),
        ("127.0.0.1:8000", "http://[::1", True),
    ],
)
def test_a_page_of_another_origin_is_doubted(host: str, origin: str, doubted: bool) -> None:
    said = OURS.doubt({"host": host, "origin": origin})
    assert said == (f"it came from a page of {origin!r}, which RESNEXT_CORS_ORIGINS does not name" if doubted else None)
    assert Hosts([], ["*"]).doubt({"host": "localhost", "origin": origin}) is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers", [{"host": "evil.example:8000"}, {"host": "127.0.0.1", "origin": "http://evil.example"}]
)
async def test_a_web_page_can_change_nothing_on_a_service_without_keys(serve: Serve, headers: dict[str, str]) -> None:
    """By DNS rebinding, or by a form: none of these needs a preflight."""
    async with serve() as (client, _):
        for path in ("/models/1/activate", "/train/a/cancel", "/v2/repository/models/resnext50/load"):
            answer = await client.post(path, headers=headers | {"content-type": "text/plain"}, content=b"{}")
            assert answer.status_code == 403, path
            assert "a key: it came f" in answer.text
        assert (await client.get("/train", headers=headers)).status_code == 403
        assert (await client.get("/models", headers=headers)).status_code == 200
    async with serve(api_keys="secret") as (client, _):  # which no page elsewhere has
        answer = await client.delete("/models/9", headers=headers | {"x-api-key": "secret"})
        assert answer.status_code == 404


@pytest.mark.anyio
async def test_with_names_a_request_for_another_host_is_refused(serve: Serve) -> None:
    async with serve(trusted_hosts="api.example, *.cluster.example") as (client, _):
        for host in ("api.example", "a.cluster.example", "localhost:8000", "10.0.0.1:8000"):
            assert (await client.get("/health/live", headers={"host": host})).status_code == 200
        for path in ("/health/live", "/v2/health/live", "/docs", "/predict", "/nowhere"):
            answer = await client.get(path, headers={"host": "evil.example"})
            assert answer.status_code == (400 if path.startswith("/v2") else 421), path
