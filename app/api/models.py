"""/models: list the versions of the served model, show, activate and delete them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from app.api.access.granted import may
from app.api.problems import documented
from app.api.schemas import ModelList, ModelRef, VersionSummary
from app.errors import (
    InvalidRequest,
    LoadTimedOut,
    NoModel,
    RolloutBusy,
    Unauthorized,
    VersionLive,
    VersionNotFound,
    VersionUnusable,
)
from app.rollout.serving import Serving
from app.services import ServicesDep
from training.contract.activation import Failure
from training.contract.manifest import Manifest
from training.errors import ContractError, RepositoryUnreadable, StorageUnavailable

UNREADABLE = "its manifest cannot be read"
UNSURE = "it cannot be read which version is active, or which have failed"

router = APIRouter(prefix="/models", tags=["models"])

Version = Annotated[int, Path(ge=1, description="number of a version")]


@router.get("", summary="List the versions", responses=documented(Unauthorized, RepositoryUnreadable))
async def list_versions(services: ServicesDep) -> ModelList:
    """Lists all versions with their measured quality. A version whose manifest cannot be read has an `error`; the list
    has one where it cannot be read which version is active, or which have failed. Only a caller who may train sees
    reasons."""
    found = await asyncio.to_thread(_list, services.serving)
    return found if may("train") else _without_reasons(found)


@router.get(
    "/{version}",
    summary="Show a version's manifest",
    responses=documented(Unauthorized, VersionNotFound, VersionUnusable, InvalidRequest, RepositoryUnreadable),
)
async def get_version(version: Version, services: ServicesDep) -> Manifest:
    """Returns the manifest: everything that is recorded about the version and its training."""
    await services.serving.require(version)
    try:
        return await asyncio.to_thread(services.serving.repository.manifest, version)
    except ContractError as error:
        raise VersionUnusable(services.serving.reason(error) if may("train") else UNREADABLE) from None


@router.post(
    "/{version}/activate",
    summary="Make a version live",
    responses=documented(
        *(Unauthorized, VersionNotFound, VersionUnusable, ContractError, InvalidRequest),
        *(RepositoryUnreadable, StorageUnavailable, RolloutBusy, LoadTimedOut, NoModel),
    ),
)
async def activate_version(version: Version, services: ServicesDep) -> ModelRef:
    """Loads, verifies and warms the version beside the live one, then swaps them; the answer comes when it is live.
    Requests in flight finish on the version that they began with. What is damaged of ACTIVE, HISTORY and FAILURES is
    kept aside and written anew. The live version is loaded again if its files have changed."""
    await services.serving.activate(version)
    return ModelRef(name=services.serving.repository.name, version=version)


@router.delete(
    "/{version}",
    summary="Delete a version",
    status_code=204,
    responses=documented(
        *(Unauthorized, VersionNotFound, VersionLive, ContractError, InvalidRequest),
        *(RepositoryUnreadable, StorageUnavailable, RolloutBusy, NoModel),
    ),
)
async def delete_version(version: Version, services: ServicesDep) -> None:
    """Deletes a version, unless it is live or active."""
    await services.serving.delete(version)


def _list(serving: Serving) -> ModelList:
    repository = serving.repository
    live = serving.live.model.version if serving.live else None
    active: int | None = None
    failures: dict[int, Failure] = {}
    errors = []
    try:
        active = repository.active()
    except ContractError as error:
        errors.append(serving.reason(error))
    try:
        failures = repository.failures()
    except ContractError as error:
        errors.append(serving.reason(error))
    return ModelList(
        name=repository.name,
        live=live,
        active=active,
        error="; ".join(errors) or None,
        versions=[
            _summary(serving, v, live=v == live, active=v == active, failure=failures.get(v))
            for v in repository.versions()
        ],
    )


def _without_reasons(found: ModelList) -> ModelList:
    found.error = found.error and UNSURE
    for version in found.versions:
        version.failure = None
        version.error = version.error and UNREADABLE
    return found


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
