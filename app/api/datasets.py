"""The datasets to train on: upload an archive, list, look, delete."""

import asyncio
import logging
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response

from app.api.deadline import deadline
from app.api.examples import DATASET, DATASETS
from app.api.problems import DATASET_ERRORS, documented
from app.api.schemas import DatasetDetail, DatasetList, DatasetSummary
from app.errors import DatasetInUse, IntakeFailed, Unauthorized, UploadTooLarge
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
    "description": "A zip or tar archive as it is, told by its content: `curl -T photos.zip`.",
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
        200: {"description": "a new revision of a dataset that was there", "model": DatasetDetail, **_SHOWN},
        201: _SHOWN,
        **documented(
            *(
                *DATASET_ERRORS,
                DatasetMounted,
                UploadTooLarge,
                ArchiveTooLarge,
                ArchiveError,
                DatasetError,
                IntakeFailed,
            ),
            StorageFull,
        ),
    },
)
async def put_dataset(name: DatasetName, request: Request, services: ServicesDep) -> Response:
    """Unpacks the archive, decodes every image, keeps the readable ones and reports the rest. It becomes the current
    revision at once or not at all; older ones stay as long as an unfinished job trains on them."""
    revision = await services.intake.receive(name, request.stream())
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
    """Uploaded ones with their counts; a mounted one is counted when it is asked for alone."""
    return await on_disk(_list, services.datasets)


@router.get(
    "/{name}",
    summary="A dataset and what is wrong with it",
    response_model=DatasetDetail,
    responses={
        200: _SHOWN,
        **documented(*DATASET_ERRORS, DatasetNotFound, IntakeFailed),
    },
)
async def get_dataset(name: DatasetName, request: Request, services: ServicesDep) -> Response:
    """Of an uploaded dataset, the report that its upload made; a mounted one is read again, which takes its time, and
    ends when the client leaves."""
    revision = await on_disk(services.datasets.current, name)
    async with deadline(request, None):
        return await _detail(services, name, revision)


@router.delete(
    "/{name}",
    summary="Delete a dataset",
    status_code=204,
    responses=documented(*DATASET_ERRORS, DatasetNotFound, DatasetMounted, DatasetInUse, JobsUnavailable),
)
async def delete_dataset(name: DatasetName, services: ServicesDep) -> None:
    """With all its revisions; never while a queued or running job trains on it, and never a mounted one."""
    await on_disk(services.datasets.require_uploaded, name)
    if jobs := sorted(await answered(services.jobs.using(name))):
        raise DatasetInUse(f"dataset {name!r} is in use by {', '.join(jobs)}: cancel first, or wait", jobs=jobs)
    # a job that is queued in this very moment fails, and says that its dataset is gone
    await on_disk(services.datasets.delete, name)


async def _prune(services: Services, name: str) -> None:
    """The upload has succeeded: what goes wrong here is for the operator."""
    try:
        pinned = {revision for revision in (await answered(services.jobs.using(name))).values() if revision is not None}
        await asyncio.to_thread(services.datasets.prune, name, pinned)
    except (JobsUnavailable, DatasetStoreError, OSError) as error:
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
