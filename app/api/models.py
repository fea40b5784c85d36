"""The versions of the served model: list, look, roll back or forward, delete."""

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Path

from app.api.problems import documented
from app.api.schemas import ModelList, ModelRef, VersionSummary
from app.errors import InvalidRequest, Unauthorized, VersionLive, VersionNotFound, VersionUnusable
from app.rollout.serving import Serving
from app.services import ServicesDep
from training.contract.activation import Failure
from training.contract.manifest import Manifest
from training.errors import ContractError, StorageUnavailable

log = logging.getLogger(__name__)

router = APIRouter(prefix="/models", tags=["models"])

Version = Annotated[int, Path(ge=1, description="number of the version")]


@router.get("", summary="List the versions", responses=documented(Unauthorized))
async def list_versions(services: ServicesDep) -> ModelList:
    """All versions with their measured quality; one whose manifest can not be read says so."""
    return await asyncio.to_thread(_list, services.serving)


@router.get(
    "/{version}",
    summary="A version's manifest",
    responses=documented(Unauthorized, VersionNotFound, VersionUnusable, InvalidRequest),
)
async def get_version(version: Version, services: ServicesDep) -> Manifest:
    """Everything that is recorded about how the version came to be."""
    await services.serving.require(version)
    try:
        return await asyncio.to_thread(services.serving.repository.manifest, version)
    except ContractError as error:
        raise VersionUnusable(services.serving.reason(error)) from None


@router.post(
    "/{version}/activate",
    summary="Make a version live",
    responses=documented(Unauthorized, VersionNotFound, VersionUnusable, InvalidRequest, StorageUnavailable),
)
async def activate_version(version: Version, services: ServicesDep) -> ModelRef:
    """Loads, verifies and warms it beside the live one, then swaps; answers when it is live. Requests in flight finish
    on the version they began with."""
    await services.serving.activate(version)
    return ModelRef(name=services.serving.repository.name, version=version)


@router.delete(
    "/{version}",
    summary="Delete a version",
    status_code=204,
    responses=documented(Unauthorized, VersionNotFound, VersionLive, InvalidRequest, StorageUnavailable),
)
async def delete_version(version: Version, services: ServicesDep) -> None:
    """Never the live one."""
    await services.serving.delete(version)


def _list(serving: Serving) -> ModelList:
    repository = serving.repository
    live = serving.live.model.version if serving.live else None
    failures = _failures(serving)
    try:
        active = repository.active()
    except ContractError:  # /health tells of it
        active = None
    return ModelList(
        name=repository.name,
        live=live,
        active=active,
        versions=[
            _summary(serving, v, live=v == live, active=v == active, failure=failures.get(v))
            for v in repository.versions()
        ],
    )


def _failures(serving: Serving) -> dict[int, Failure]:
    try:
        return serving.repository.failures()
    except ContractError:
        log.exception("which versions failed can not be told")
        return {}


def _summary(serving: Serving, version: int, *, live: bool, active: bool, failure: Failure | None) -> VersionSummary:
    try:
        manifest = serving.repository.manifest(version)
    except ContractError as error:
        return VersionSummary(version=version, live=live, active=active, failure=failure, error=serving.reason(error))
    return VersionSummary(
        version=version,
        live=live,
        active=active,
        failure=failure,
        created=manifest.created,
        metrics=manifest.metrics,
        variants=manifest.variants,
        parity=manifest.parity,
    )
