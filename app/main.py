"""The map of the service: every part is made and joined here."""

import functools
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.admission import Admission
from app.auth import ApiKeys
from app.cores import usable_cores
from app.drain import AnnounceDrain
from app.errors import install_error_handlers
from app.limits import BodyLimit
from app.model import load_model
from app.provider import choose_provider
from app.routes import health, models, predict
from app.services import Services
from app.serving import Serving
from app.settings import Settings, read_settings
from training.contract import ModelRepository


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; settings come from the environment when none are given.

    Raises SettingsError, and ProviderError when the execution provider asked for does not work.
    """
    settings = settings or read_settings()
    services = _make_services(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.serving:
            yield
        services.decoders.shutdown()

    app = FastAPI(title="ResNeXt Service", version=__version__, lifespan=lifespan, redoc_url=None)
    app.state.services = services
    keys = [key.get_secret_value() for key in settings.api_keys]
    guarded = [Security(HTTPBearer(auto_error=False))] if keys else []  # for /docs; ApiKeys does the work
    app.include_router(predict.router, dependencies=guarded)
    app.include_router(models.router, dependencies=guarded)
    app.include_router(health.router)
    install_error_handlers(app)

    # the last one added sees a request first
    app.add_middleware(BodyLimit, limit=settings.max_upload)
    if keys:
        app.add_middleware(ApiKeys, keys=keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(AnnounceDrain, serving=services.serving)
    return app


def _make_services(settings: Settings) -> Services:
    cores = usable_cores()
    repository = ModelRepository(settings.models, settings.model)
    load = functools.partial(
        load_model,
        repository,
        provider=choose_provider(settings.provider),
        precision=settings.precision,
        threads=cores if settings.threads == "auto" else settings.threads,
        max_batch=settings.max_batch,
        limit=settings.queue_size,
    )
    decode_threads = cores if settings.decode_threads == "auto" else settings.decode_threads
    return Services(
        settings=settings,
        serving=Serving(repository, load, settings.poll_interval, settings.batch_delay / 1000),
        admission=Admission(settings.queue_size),
        decoders=ThreadPoolExecutor(decode_threads, thread_name_prefix="decode"),
    )
