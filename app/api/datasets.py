"""/datasets: upload archives as datasets, list, show and delete them."""

import asyncio
import logging
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response

from app.api.deadline import deadline
from app.api.examples import DATASET, DATASETS
from app.api.problems import DATASET_ERRORS, documented
from app.api.schemas import DatasetDetail, DatasetList, DatasetSummary
from app.errors import DatasetInUse, DeadlineExceeded, IntakeBusy, IntakeFailed, Unauthorized, UploadTooLarge
from app.rollout.bounded import until
from app.services import Services, ServicesDep
from app.trainer.datasets import on_disk
from app.trainer.jobs import answered
from training.contract.names import RULE, Name
from training.datasets.listing import DatasetError
from training.datasets.store import DatasetMounted, DatasetNotFound, DatasetStore, DatasetStoreError, Summary
from training.errors import ArchiveError, ArchiveTooLarge, StorageFull, StorageUnavailable
from training.jobs.job import JobsUnavailable

router = APIRouter(prefix="/datasets", tags=["datasets"])

logger = logging.getLogger(__name__)


DatasetName = Annotated[Name, Path(description="name of the dataset")]

_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "description": "A zip or tar archive as the raw body: `curl -T photos.zip`. Its content shows which it is.",
    "content": {"application/octet-stream": _ARCHIVE, "application/zip": _ARCHIVE, "application/x-tar": _ARCHIVE},
}
_SHOWN: dict[str, Any] = {"content": {"application/json": {"example": DATASET}}}  # Any: FastAPI's own type


@router.put(
    "/{name}",
    summary="Upload a dataset",
    response_model=DatasetDetail,
    status_code=201,
    openapi_extra={"requestBody": _BODY},
    responses={
        200: {"description": "a new revision of a dataset that existed", "model": DatasetDetail, **_SHOWN},
        201: _SHOWN,
        **documented(
            *(*DATASET_ERRORS, DatasetMounted, UploadTooLarge, StorageFull),
            *(ArchiveTooLarge, ArchiveError, DatasetError, IntakeFailed, IntakeBusy, DeadlineExceeded),
        ),
    },
)
async def put_dataset(name: DatasetName, request: Request, services: ServicesDep) -> Response:
    """Unpacks the archive, decodes every image, keeps the readable ones and reports the rest. The result becomes the
    current revision as a whole or not at all. Older revisions stay while an unfinished job trains on them. It ends when
    the client leaves."""
    ending = IntakeBusy("the service is shutting down; upload it again", headers={"Retry-After": "10"})
    async with services.intake.staging(name) as work:
        async with until(services.drain.closing, ending):
            await services.intake.save(request.stream(), work)
            async with deadline(request, None):
                await services.intake.unpack(work, name)
        revision = await services.intake.commit(work, name)
    await _prune(services, name)
    answer = await _detail(services, name, revision)
    answer.status_code = 201 if revision == 1 else 200
    answer.headers["Location"] = f"{services.settings.root_path}/datasets/{quote(name)}"
    return answer


@router.get(
    "",
    summary="List the datasets",
    responses={
        200: {"content": {"application/json": {"example": DATASETS}}},
        **documented(Unauthorized, StorageUnavailable),
    },
)
async def list_datasets(services: ServicesDep) -> DatasetList:
    """Lists all datasets, the uploaded ones with their counts. Only GET /datasets/{name} counts a mounted dataset."""
    return await on_disk(_list, services.datasets)


@router.get(
    "/{name}",
    summary="Show a dataset and what is wrong with it",
    response_model=DatasetDetail,
    responses={
        200: _SHOWN,
        **documented(*DATASET_ERRORS, DatasetNotFound, IntakeFailed, IntakeBusy, DeadlineExceeded),
    },
)
async def get_dataset(name: DatasetName, request: Request, services: ServicesDep) -> Response:
    """Returns an uploaded dataset with the report that its upload made. A mounted dataset is checked again, which may
    take long and ends when the client leaves."""
    revision = await on_disk(services.datasets.current, name)
    ending = IntakeBusy("the service is shutting down", headers={"Retry-After": "10"})
    async with until(services.drain.closing, ending), deadline(request, None):
        return await _detail(services, name, revision)


@router.delete(
    "/{name}",
    summary="Delete a dataset",
    status_code=204,
    responses=documented(*DATASET_ERRORS, DatasetNotFound, DatasetMounted, DatasetInUse, JobsUnavailable),
)
async def delete_dataset(name: DatasetName, services: ServicesDep) -> None:
    """Deletes an uploaded dataset with all its revisions, unless a queued or running job trains on it."""
    await on_disk(services.datasets.require_uploaded, name)
    if jobs := sorted(await answered(services.jobs.using(name))):
        raise DatasetInUse(f"dataset {name!r} is in use by {', '.join(jobs)}: cancel these jobs, or wait", jobs=jobs)
    # a job that is queued at this very moment will fail and say that its dataset is gone
    await on_disk(services.datasets.delete, name)


async def _prune(services: Services, name: str) -> None:
    """Removes old revisions. The upload has succeeded, so a failure here only goes to the log."""
    try:
        pinned = {revision for revision in (await answered(services.jobs.using(name))).values() if revision is not None}
        await asyncio.to_thread(services.datasets.prune, name, pinned)
    except (JobsUnavailable, DatasetStoreError, StorageUnavailable, OSError) as error:
        logger.warning("old revisions of dataset %s stay until the next upload: %s", name, error)


async def _detail(services: Services, name: str, revision: int | None) -> Response:
    summary, report, problem = None, b"null", None
    if revision is not None:
        summary = await on_disk(services.datasets.summary, name, revision)
        report = await on_disk(services.datasets.report, name, revision)
    else:
        try:
            summary, report = await services.intake.look(name)
        except DatasetError as error:
            problem = str(error)
    head = _described(name, revision, summary, problem)
    # joined as text: a report of a million files would keep the interpreter busy for a second
    body = head.model_dump_json()[:-1].encode() + b',"report":' + report + b"}"
    return Response(body, media_type="application/json")


def _list(store: DatasetStore) -> DatasetList:
    misnamed = [DatasetSummary(name=name, source="mounted", error=f"rename it: {RULE}") for name in store.misnamed()]
    return DatasetList(datasets=[_listed(store, name) for name in store.names()] + misnamed)


def _listed(store: DatasetStore, name: str) -> DatasetSummary:
    try:
        revision = store.current(name)
        return _described(name, revision, store.summary(name, revision) if revision else None)
    except DatasetStoreError as error:
        return DatasetSummary(name=name, source="uploaded", error=str(error))


def _described(name: str, revision: int | None, summary: Summary | None, error: str | None = None) -> DatasetSummary:
    return DatasetSummary(
        name=name,
        source="mounted" if revision is None else "uploaded",
        revision=revision,
        created=summary.created if summary and revision else None,
        images=summary and summary.images,
        classes=summary and summary.classes,
        bytes=summary and summary.bytes,
        error=error,
    )
