import httpx
import pytest
from fastapi import FastAPI

from app import errors
from app.api.problems import documented, install_error_handlers
from app.errors import InferenceFailed, QueueFull, status_and_code
from tests.app.conftest import client_of
from tests.app.world import every_error
from training.errors import ArchiveError, ArchiveTooLarge, TrainingError

pytestmark = pytest.mark.anyio


def make_app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/full")
    async def full() -> None:
        raise QueueFull("no room", headers={"Retry-After": "3"}, depth=7)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret detail")

    @app.get("/archive")
    async def archive() -> None:
        raise ArchiveError("it is cut short")

    @app.get("/run")
    async def run() -> None:
        raise TrainingError("no error for a client: /srv/secret")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    return app


async def get(path: str, method: str = "GET") -> httpx.Response:
    async with client_of(make_app()) as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/full", 503, "queue_full"),
        ("GET", "/broken", 500, "internal_error"),
        ("GET", "/number?n=x", 422, "invalid_request"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/full", 405, "method_not_allowed"),
        ("GET", "/archive", 422, "archive_unusable"),
        ("GET", "/run", 500, "internal_error"),
    ],
)
async def test_every_error_is_a_problem(method: str, path: str, status: int, code: str) -> None:
    answer = await get(path, method)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= problem.keys()


async def test_headers_and_extra_members_travel() -> None:
    answer = await get("/full")
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["depth"] == 7


async def test_validation_names_the_field_and_what_came() -> None:
    problem = (await get("/number?n=x")).json()
    assert problem["errors"][0]["field"] == "query.n"
    assert "got 'x'" in problem["detail"]


async def test_unhandled_says_nothing_of_the_inside() -> None:
    for path in ("/broken", "/run"):
        assert "secret" not in (await get(path)).text


async def test_405_says_what_is_allowed() -> None:
    assert (await get("/full", "POST")).headers["allow"] == "GET"


def test_codes_are_unique_and_statuses_fit() -> None:
    seen = [status_and_code(error) for error in every_error()]
    assert len({code for _, code in seen}) == len(seen) > 35
    assert all(400 <= status <= 507 for status, _ in seen)


def test_an_error_has_the_code_of_its_nearest_base() -> None:
    class Encrypted(ArchiveError):
        pass

    assert status_and_code(Encrypted) == (422, "archive_unusable")
    assert status_and_code(ArchiveTooLarge) == (413, "archive_too_large")
    with pytest.raises(KeyError):
        status_and_code(TrainingError)


def test_documented_groups_by_status() -> None:
    assert documented(QueueFull, InferenceFailed, errors.NoModel)[503]["description"] == "`queue_full`, `no_model`"
