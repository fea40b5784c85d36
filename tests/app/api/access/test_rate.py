from pathlib import Path

import httpx
import pytest

from app.api.access.keys import Key
from app.api.access.rate import PLACES, RateLimit, place_of
from app.errors import RateLimited
from tests.app.conftest import Serve
from tests.process import service


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, key: str = "", address: str = "10.0.0.1") -> int | None:
    """Returns the seconds of Retry-After when a request is one too many, else None."""
    try:
        limit.take(key, address)
    except RateLimited as error:
        return int((error.headers or {})["Retry-After"])
    return None


def test_after_retry_after_the_next_one_is_taken() -> None:
    clock = Clock()
    limit = RateLimit("3/minute", clock)
    assert taken(limit) is None
    clock.now += 17.5
    assert [taken(limit) for _ in range(4)] == [None, None, 43, 43]
    clock.now += 42.4
    assert taken(limit) == 1
    clock.now += 1
    assert [taken(limit) for _ in range(4)] == [None, None, None, 60]


def test_each_key_and_each_address_has_its_own() -> None:
    limit = RateLimit("1/day")
    for _ in range(2):
        callers = [("shop", "10.0.0.1"), ("ci", "10.0.0.1"), ("", "10.0.0.1"), ("", "10.0.0.2"), ("", "fe80::1%eth0")]
        taken_ = [taken(limit, *caller) is None for caller in callers]
    assert taken_ == [False] * 5


def test_many_addresses_fill_no_memory() -> None:
    limit = RateLimit("1/day")
    for n in range(2 * PLACES):
        taken(limit, address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert PLACES / 2 < limit.counts <= PLACES
    taken(limit, address="x" * 1_000_000)


def test_a_customer_with_a_whole_network_is_one_caller() -> None:
    assert place_of("2001:db8:1:2::1") == place_of("2001:db8:1:2:ffff::9")
    assert place_of("2001:db8:1:2::1") != place_of("2001:db8:1:3::1")
    assert place_of("::ffff:10.0.0.1") == place_of("10.0.0.1")


@pytest.mark.anyio
async def test_one_too_many_is_429_and_probes_are_not_counted(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{Key.of('shop', 'predict', 'a').line}\n{Key.of('ci', 'train', 'b').line}")
    async with serve(api_keys_file=tmp_path / "keys", rate_limit="2/day") as (client, _):
        for _ in range(5):
            for path in ("/health", "/health/live", "/v2/health/live", "/docs", "/"):
                assert (await client.get(path, headers={"x-api-key": "a"})).status_code == 200
        wanted = {"a": [200, 200, 429, 429], "b": [200, 200, 429, 429], "wrong": [401, 401, 429, 429]}
        for key, statuses in wanted.items():
            answers = [await client.get("/models", headers={"x-api-key": key}) for _ in statuses]
            assert [answer.status_code for answer in answers] == statuses
            assert 86_000 < int(answers[-1].headers["retry-after"]) <= 86_400
            assert answers[-1].json()["code"] == "rate_limited"
        assert (await client.get("/v2", headers={"x-api-key": "a"})).status_code == 429


def test_a_proxys_word_counts_only_from_proxies_that_are_named(tmp_path: Path) -> None:
    with service(tmp_path, rate_limit="1/day", trusted_proxies="127.0.0.2") as (_, port):

        def status(of: str, source: str) -> int:
            transport = httpx.HTTPTransport(local_address=source)
            with httpx.Client(transport=transport) as client:
                return client.get(f"http://127.0.0.1:{port}/models", headers={"x-forwarded-for": of}).status_code

        assert [status(of, "127.0.0.2") for of in ("10.0.0.1", "10.0.0.2", "10.0.0.1")] == [200, 200, 429]
        assert [status(of, "127.0.0.1") for of in ("10.0.0.3", "10.0.0.4")] == [200, 429]
