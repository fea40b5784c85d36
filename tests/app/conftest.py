"""Fixtures of the service's tests: a real repository, a small real network and the real app."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.services import Services, services_of
from app.settings import Settings
from tests.app.network import repository_at
from training.contract.repository import ModelRepository

Serve = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Services]]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RESNEXT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return repository_at(tmp_path)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts the app with the active version live: `async with serve(**settings) as (client, services)`."""

    @asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
        # a version is looked for when the test asks: refresh() waits for a load that is under way
        values: dict[str, object] = {"models": tmp_path, "provider": "cpu", "threads": 1, "poll_interval": 3600}
        values |= {"datasets": tmp_path / "datasets", "state": tmp_path / "state"}
        app = create_app(Settings.model_validate(values | settings))
        async with app.router.lifespan_context(app), client_of(app) as client:
            await services_of(app).serving.refresh()
            yield client, services_of(app)

    return start


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """Makes a client of the app in this process. Exceptions become a 500, as with a server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", timeout=30)
