"""What the routes work with; the one place besides `create_app` that touches `app.state`."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.admission import Admission
from app.serving import Serving
from app.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts with a lifetime, as `create_app` made them."""

    settings: Settings
    serving: Serving
    admission: Admission
    decoders: ThreadPoolExecutor
    started: float = field(default_factory=time.monotonic)


def services_of(app: FastAPI) -> Services:
    """The services of an app that `create_app` made."""
    services: Services = app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request.app)


ServicesDep = Annotated[Services, Depends(_services)]
