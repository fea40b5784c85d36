"""GET /metrics: what Prometheus scrapes."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from app.errors import Unauthorized, documented
from app.metrics import MEDIA_TYPE
from app.services import ServicesDep

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse, responses=documented(Unauthorized)
)
async def metrics(services: ServicesDep) -> Response:
    """In the text format of Prometheus."""
    return Response(services.metrics.render(), media_type=MEDIA_TYPE)
