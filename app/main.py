"""The map of the service: makes every part and connects them."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app import __version__
from app.api import datasets, health, metrics, models, predict, train
from app.api.access.access import Access
from app.api.access.browsers import Hosts
from app.api.access.keys import Keys
from app.api.access.reach import addresses_of, scope_without_key
from app.api.middleware.auth import Guard
from app.api.middleware.drain import AnnounceDrain
from app.api.middleware.head import Head
from app.api.middleware.limits import BodyLimit
from app.api.middleware.observer import Observer
from app.api.middleware.paths import OwnPaths
from app.api.middleware.shortcut import Shortcut
from app.api.open_inference import rest as inference_v2
from app.api.page.routes import make_router
from app.api.problems import documented, install_error_handlers
from app.errors import Forbidden, RateLimited, UntrustedHost
from app.execution.cores import usable_cores
from app.execution.loading import load_model
from app.execution.measured import Measurements
from app.execution.probe import choose_provider
from app.execution.session import Execution
from app.execution.turns import Turns
from app.inference.admission import Admission
from app.inference.infer import Inference
from app.inference.upload_memory import MEMORY_SHARE, MOST_AUTO, UploadMemory, usable_memory
from app.observability.logs import RequestLog
from app.observability.metrics import Metrics, shared_folder
from app.observability.observation import Batch
from app.observability.requests import Requests, Watcher
from app.processes.drain import Drain
from app.processes.keeper import training_worker
from app.rollout.rollback import RollbackPolicy
from app.rollout.serving import Serving
from app.services import Services
from app.settings import Settings, SettingsError, read_settings
from app.trainer.datasets import Intake
from app.trainer.jobs import LIMIT_S, PATIENCE_S, JobStates
from app.watch import Watch
from training.contract.repository import ModelRepository
from training.datasets.store import DatasetStore
from training.jobs.jobs import Jobs

if TYPE_CHECKING:
    from app.api.access.rate import RateLimit

LOCK_S = 5.0  # that a request waits for another process that writes the models or the datasets

GUARDED = (
    predict.router,
    models.router,
    datasets.router,
    train.router,
    metrics.router,
    inference_v2.router,
)
OPENAPI_PATH = "/openapi.json"
OPEN = (health.router, inference_v2.open_router)
# headers that a page on another origin may read; named, since "*" does not work for pages that send credentials
EXPOSED_HEADERS = (
    *("Allow", "ETag", "Location", "Retry-After", "Server-Timing", "WWW-Authenticate"),
    *("X-Next-Offset", "X-Request-ID", "Inference-Header-Content-Length"),
)


def create_app(settings: Settings | None = None, addresses: Sequence[str] = ()) -> FastAPI:
    """Makes the service as an ASGI application. Without `settings` it reads them from the environment.

    `addresses` are those that its sockets are bound to, by default those of `RESNEXT_HOST`.

    Raises SettingsError, also for API keys that cannot be read, and ProviderError when the execution provider that was
    named does not work.
    """
    settings = settings or read_settings()
    keys = Keys.of(settings)
    access = Access(
        keys,
        scope_without_key(addresses or addresses_of(settings.host), settings.insecure),
        Hosts(settings.trusted_hosts, settings.cors_origins),
        _rate_limit(settings),
    )
    watchers = _watchers(settings)
    services = _make_services(settings, watchers, keys)
    requests = Requests(services.metrics, watchers)
    grpc = _grpc_server(services, requests, access)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as running:
            running.enter_context(keys.followed())
            for watcher in watchers:
                await running.enter_async_context(watcher)
            running.enter_context(services.watch.watching())
            await running.enter_async_context(services.watch.beating())
            await running.enter_async_context(services.metrics.carried())
            await running.enter_async_context(services.trainer)
            await running.enter_async_context(services.serving)
            opening = asyncio.create_task(_open_jobs(services))
            if shared_folder():  # other processes may serve: this one opens the port once it can serve too
                await services.serving.settled.wait()
            async with grpc:
                yield
            services.drain.begin()
            services.drain.answered = True
            if not services.serving.settled.is_set():
                opening.cancel()
            await asyncio.wait({opening}, timeout=LIMIT_S)
        services.inference.decoders.shutdown()
        await services.jobs.close()

    app = FastAPI(
        title="ResNeXt Service",
        version=__version__,
        lifespan=lifespan,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # OwnPaths removes slashes
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    app.state.services = services
    guarded = [Security(HTTPBearer(auto_error=False))] if keys else []  # only for /docs; Guard checks the keys
    for router in GUARDED:
        refused = documented(Forbidden, UntrustedHost, RateLimited, protocol=router is inference_v2.router)
        app.include_router(router, dependencies=guarded, responses=refused)
    unguarded = (*OPEN, make_router(settings.root_path))
    for router in unguarded:
        app.include_router(router)

    paths = [*_paths(GUARDED), *_paths(unguarded), OPENAPI_PATH]
    if settings.root_path and any(f"{path}/".startswith(f"{settings.root_path}/") for path in paths):
        raise SettingsError(f"RESNEXT_ROOT_PATH should not be the beginning of a route, it is {settings.root_path}")
    _add_inner_middleware(app, services, access)
    install_error_handlers(app, _routes((*GUARDED, *unguarded)))
    _add_outer_middleware(app, services, requests, paths)
    return app


# the middleware that is added last sees a request first


def _add_inner_middleware(app: FastAPI, services: Services, access: Access) -> None:
    """Adds the middleware that may fail or refuse a request."""
    settings = services.settings
    app.add_middleware(Head)
    app.add_middleware(
        Shortcut,
        endpoints={predict.PATH: predict.predict, inference_v2.path_of(settings.model): inference_v2.infer},
    )
    app.add_middleware(
        BodyLimit, limit=settings.max_upload, dataset_limit=settings.max_dataset_upload, memory=services.uploads
    )
    app.add_middleware(Guard, access=access)


def _add_outer_middleware(app: FastAPI, services: Services, requests: Requests, paths: list[str]) -> None:
    """Adds the middleware that every answer passes, also the answers of the inner middleware."""
    settings = services.settings
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(AnnounceDrain, drain=services.drain)
    app.add_middleware(Observer, requests=requests, paths=paths)
    app.add_middleware(OwnPaths, prefix=settings.root_path)


def _routes(routers: Iterable[APIRouter]) -> list[Route]:
    return [route for router in routers for route in router.routes if isinstance(route, Route)]


def _paths(routers: Iterable[APIRouter]) -> list[str]:
    return [route.path for route in _routes(routers)]


async def _open_jobs(services: Services) -> None:
    """Opens the jobs' database in the background, once the first load has ended.

    Opening computes for more than a second, which would spoil what the load measures.
    """
    await services.serving.settled.wait()
    await services.jobs.open()


def _watchers(settings: Settings) -> list[Watcher]:
    """Makes what follows each request beside the metrics. Raises SettingsError when an extra is missing."""
    watchers: list[Watcher] = [RequestLog()] if settings.log == "json" else []
    if settings.otlp_endpoint is not None:
        try:
            from app.observability.tracing import Tracing, exporter
        except ImportError as error:
            needed = "OpenTelemetry: pip install 'resnext-service[otel]'"
            raise SettingsError(f"RESNEXT_OTLP_ENDPOINT needs {needed} ({error})") from None
        watchers.append(Tracing(exporter(settings.otlp_endpoint)))
    return watchers


def _rate_limit(settings: Settings) -> "RateLimit | None":
    if settings.rate_limit is None:
        return None
    from app.api.access.rate import RateLimit  # importing it takes 0.1 s

    return RateLimit(settings.rate_limit)


def _grpc_server(
    services: Services, requests: Requests, access: Access
) -> contextlib.AbstractAsyncContextManager[object]:
    """Makes the gRPC server, or nothing where no port is set for it. Raises SettingsError when the extra is missing."""
    if not services.settings.grpc_port:
        return contextlib.nullcontext()
    try:
        from app.api.open_inference.grpc_server import GrpcServer  # an optional extra; importing it takes 0.3 s
    except ImportError as error:
        raise SettingsError(f"RESNEXT_GRPC_PORT needs the extra `grpc`, which is not installed: {error}") from None
    return GrpcServer(services, requests, access)


def _make_services(settings: Settings, watchers: list[Watcher], keys: Keys) -> Services:
    cores = usable_cores()
    collected = Metrics()
    collected.queue_limit.set(settings.queue_size)
    watch = Watch(collected.count_overdue)
    repository = ModelRepository(settings.models, settings.model, LOCK_S)
    load = functools.partial(
        load_model,
        repository,
        execution=Execution(
            choose_provider(settings.provider),
            threads=cores if settings.threads == "auto" else settings.threads,
            cuda_graphs=settings.cuda_graphs,
            engines=settings.state / "engines",
            turns=Turns(watch=watch),
            measured=Measurements(shared_folder()),
            watch=watch,
            run_seconds=settings.run_timeout,
        ),
        precision=settings.precision,
        max_batch=settings.max_batch,
        limit=settings.queue_size,
    )
    policy = RollbackPolicy(settings.rollback, settings.probation_images, settings.probation_error_rate)
    decode_threads = cores if settings.decode_threads == "auto" else settings.decode_threads
    store = DatasetStore(settings.datasets, LOCK_S)
    jobs = Jobs(settings, PATIENCE_S)
    drain = Drain()
    auto_uploads = min(MOST_AUTO, usable_memory() // MEMORY_SHARE) // settings.processes

    def observe(batch: Batch) -> None:
        collected.count_batch(batch)
        for watcher in watchers:
            watcher.batch(batch)

    serving = Serving(
        repository,
        load,
        settings.poll_interval,
        settings.batch_delay / 1000,
        policy,
        collected,
        observe,
        watch,
        settings.load_timeout,
        drain.closing,
    )
    admission = Admission(
        settings.queue_size,
        show=collected.show_queue,
        seconds=settings.queue_seconds,
        deadline=settings.request_timeout,
        expected=serving.rate,
    )
    return Services(
        settings=settings,
        serving=serving,
        inference=Inference(
            admission,
            ThreadPoolExecutor(decode_threads, thread_name_prefix="decode"),
            settings,
            watch,
        ),
        uploads=UploadMemory(auto_uploads if settings.upload_memory == "auto" else settings.upload_memory),
        metrics=collected,
        datasets=store,
        intake=Intake(
            store,
            settings.max_dataset_files,
            settings.max_dataset_bytes,
            settings.environment_of_child(),
            watch,
            settings.intake_timeout,
        ),
        jobs=jobs,
        job_states=JobStates(jobs),
        trainer=training_worker(settings, lambda: drain.begun),
        drain=drain,
        keys_error=lambda: keys.error,
        watch=watch,
    )
