"""/train: queue training jobs, follow them, cancel and resume them, read their logs and reports."""

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import JsonValue, ValidationError

from app.api.events import CURSOR, Cursor, Events
from app.api.examples import TRAININGS
from app.api.problems import BODY_ERRORS, DATASET_ERRORS, JOB_ERRORS, documented
from app.api.schemas import JobPage, TrainRequest
from app.errors import InvalidRequest, ReportNotFound, Unauthorized, UnsupportedBody
from app.services import Services, ServicesDep
from app.trainer.datasets import on_disk
from app.trainer.jobs import answered
from training.config import TrainConfig
from training.contract.manifest import REPORT_FOLDER
from training.contract.repository import ModelRepository
from training.datasets.layout import DatasetError, layout_of
from training.datasets.store import DatasetNotFound
from training.errors import ContractError, TrainingError
from training.jobs.job import (
    DatasetRef,
    Job,
    JobDamaged,
    JobFinished,
    JobNotResumable,
    JobState,
    JobsUnavailable,
    KeyReused,
)
from training.runs.source import MethodError, require_weights, with_source
from training.weights.store import WeightsStore

router = APIRouter(prefix="/train", tags=["train"])

TAIL_BYTES = 1024**2  # the last lines of a log are looked for in its last TAIL_BYTES
CHUNK_BYTES = 64 * 1024
_EVENT_ID: dict[str, JsonValue] = {"pattern": f"^({CURSOR.pattern})?$"}
Id = Annotated[str, Path(description="id of the job")]


async def _json_body(request: Request) -> None:
    """Raises UnsupportedBody unless the body is sent as JSON.

    `curl -d` without a header sends JSON as a form; FastAPI would only say that the body is no object.
    """
    came = request.headers.get("content-type", "")
    media = came.partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise UnsupportedBody(f"the body should come as Content-Type: application/json, it came as {came or 'none'}")


@router.post(
    "",
    summary="Train, verify and publish a classifier",
    status_code=202,
    dependencies=[Depends(_json_body)],
    responses={
        202: {"headers": {"Location": {"description": "path of the job", "schema": {"type": "string"}}}},
        **documented(*BODY_ERRORS, *DATASET_ERRORS, DatasetError, JobDamaged, KeyReused, JobsUnavailable),
    },
)
async def submit(
    wanted: Annotated[TrainRequest, Body(openapi_examples=TRAININGS)],
    response: Response,
    services: ServicesDep,
    priority: Annotated[
        int, Query(ge=-999, le=999, description="higher runs sooner; equal priorities run in order")
    ] = 0,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x20-\x7e]{1,255}$",
            description="1 to 255 printable ASCII characters. The same request with the same key makes only one job",
        ),
    ] = None,
) -> Job:
    """Queues a training job. A worker trains, exports and verifies a classifier and publishes it as a new version. The
    version goes live if it passes the gate. The body has the options of `resnext train`, but `data` is a dataset's
    name."""
    dataset = await _dataset(services, wanted.data)
    config = await on_disk(_config, services, wanted)
    job, _ = await answered(services.jobs.submit(config, dataset, priority=priority, key=idempotency_key))
    response.headers["Location"] = f"{services.settings.root_path}{router.prefix}/{job.id}"
    return job


def _config(services: Services, wanted: TrainRequest) -> TrainConfig:
    """Returns the settings of a job, with the weights that it starts from. Raises RequestValidationError."""
    settings = {"name": services.settings.model, **wanted.model_dump(exclude_unset=True, exclude_none=True)}
    repository = ModelRepository(services.settings.models, settings["name"])
    try:
        config = TrainConfig.model_validate(with_source(settings, repository, WeightsStore(services.settings.weights)))
        require_weights(config)
        return config
    except MethodError as error:
        raise _invalid(("body", "method"), str(error), wanted.method) from None
    except ValidationError as error:  # settings that do not go with the weights'
        problem = error.errors()[0]
        raise _invalid(("body", *map(str, problem["loc"])), problem["msg"], str(problem["input"])) from None
    except TrainingError as error:
        raise _invalid(("body", "init"), str(error), wanted.init) from None


@router.get("", summary="List the jobs", responses=documented(Unauthorized, InvalidRequest, JobsUnavailable))
async def list_jobs(
    services: ServicesDep,
    state: Annotated[
        tuple[JobState, ...], Query(description="only jobs in this state; may be repeated for several states")
    ] = (),
    limit: Annotated[int, Query(ge=1, le=200, description="most jobs in the answer")] = 50,
    offset: Annotated[int, Query(ge=0, description="jobs to skip")] = 0,
) -> JobPage:
    """Lists the jobs, newest first. Those that cannot be read stand in `unreadable`."""
    page = await answered(services.jobs.list(state, limit, offset))
    return JobPage(**page._asdict(), limit=limit, offset=offset)


@router.get("/{id}", summary="Show a job and its progress", responses=documented(*JOB_ERRORS))
async def get_job(id: Id, services: ServicesDep) -> Job:
    """Returns the job: state, phase, seconds of each phase, newest step, epochs, the gate's verdict, version."""
    return await answered(services.jobs.get(id))


@router.get(
    "/{id}/events",
    summary="Follow a job",
    response_class=Response,  # FastAPI's own streams know no 204
    responses={
        200: {"content": {EventSourceResponse.media_type: {"schema": {"type": "string"}}}},
        204: {"description": "the job is over and the client has seen all events; an EventSource then stops asking"},
        **documented(*JOB_ERRORS),
    },
)
async def events(
    id: Id,
    services: ServicesDep,
    last_event_id: Annotated[
        str, Header(description="id of the last event seen; the stream goes on after it", json_schema_extra=_EVENT_ID)
    ] = "",
    since: Annotated[
        str,
        Query(
            alias="last_event_id",
            description="as the header, for clients that cannot set one",
            json_schema_extra=_EVENT_ID,
        ),
    ] = "",
) -> Response:
    """Streams server-sent events: each line of the job's progress and each change of its state, once, from the start or
    after the last event seen. The last event is the state that the job ends in; when the job is resumed, more follow.
    """
    following = Events(id, services.jobs.run(id).progress, services.job_states, lambda: services.drain.begun)
    came = last_event_id or since
    try:
        cursor = Cursor.parse(came) if came else Cursor()
        if await following.over(cursor):
            return Response(status_code=204)
    except ValueError as error:
        place = ("header", "last-event-id") if last_event_id else ("query", "last_event_id")
        raise _invalid(place, str(error), came) from None
    # a proxy that buffers the answer would hold the events back
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(following.follow(cursor), headers=headers)


@router.get(
    "/{id}/log",
    summary="Read a job's log",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {}},
            "headers": {"X-Next-Offset": {"description": "the offset to continue from", "schema": {"type": "integer"}}},
        },
        **documented(*JOB_ERRORS),
    },
)
async def log(
    id: Id,
    services: ServicesDep,
    offset: Annotated[
        int, Query(ge=0, description="first byte to send; continue with X-Next-Offset of the last answer")
    ] = 0,
    tail: Annotated[int | None, Query(ge=1, le=10_000, description="send only this many of the last lines")] = None,
) -> Response:
    """Returns what the job has printed, as text; nothing before a worker has begun the job."""
    await answered(services.jobs.status(id))
    path = services.jobs.run(id).log
    start, end = await asyncio.to_thread(_extent, path, offset, tail)
    headers = {"X-Next-Offset": str(end)}
    return StreamingResponse(_part(path, start, end), media_type="text/plain", headers=headers)


@router.get(
    "/{id}/report/{file}",
    summary="Get a picture or table of a job's report",
    response_class=FileResponse,
    responses={
        200: {"content": {"image/png": {}, "application/json": {}}},
        **documented(*JOB_ERRORS, ReportNotFound),
    },
)
async def report(id: Id, file: str, services: ServicesDep) -> Response:
    """Returns a file of the report: curves, confusion matrix, predictions or metrics, once the job has made it. The 404
    of an unknown name lists the files."""
    job = await answered(services.jobs.get(id))
    folders = await asyncio.to_thread(_report_folders, services, job)
    found = {path.name: path for folder in folders for path in sorted(folder.glob("[!.]*")) if path.is_file()}
    if file not in found:
        names = ", ".join(sorted(found)) or "nothing yet"
        raise ReportNotFound(f"job {id} has no {file!r} in its report; it has: {names}", files=sorted(found))
    return FileResponse(found[file])


@router.post("/{id}/cancel", summary="Cancel a job", status_code=202, responses=documented(*JOB_ERRORS, JobFinished))
async def cancel(id: Id, services: ServicesDep) -> Job:
    """Takes the job from the queue, or ends its process within seconds. What it has done so far is kept."""
    return await answered(services.jobs.cancel(id))


@router.post(
    "/{id}/resume", summary="Resume a job", status_code=202, responses=documented(*JOB_ERRORS, JobNotResumable)
)
async def resume(id: Id, services: ServicesDep) -> Job:
    """Queues a cancelled or failed job again. It continues from its last checkpoint."""
    return await answered(services.jobs.resume(id))


async def _dataset(services: Services, data: str) -> DatasetRef:
    """Resolves a dataset to a revision now, so that the job trains on what was there when it was queued.

    Of a mounted dataset only the layout is checked, which is quick, and none of its files. Raises DatasetError,
    DatasetDamaged, RequestValidationError, StorageUnavailable.
    """
    name, _, number = data.partition("@")
    try:
        found = await on_disk(services.datasets.resolve, name, int(number) if number else None)
    except DatasetNotFound as error:
        raise _invalid(("body", "data"), str(error), data) from None
    if found.revision is None:
        await on_disk(_require_layout, found.folder, name)
    return DatasetRef(name=name, revision=found.revision, fingerprint=found.fingerprint)


def _require_layout(folder: pathlib.Path, name: str) -> None:
    try:
        layout_of(folder)
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(folder), name)) from None


def _invalid(place: tuple[str, ...], message: str, came: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": place, "msg": message, "input": came}])


def _report_folders(services: Services, job: Job) -> list[pathlib.Path]:
    """Returns the report folders of the published version and of the run. For a name in both, the run's file counts."""
    folders = [services.jobs.run(job.id).report]
    if job.version is not None:
        try:
            version = ModelRepository(services.settings.models, job.config.name).path(job.version)
            folders.insert(0, version / REPORT_FOLDER)
        except ContractError:
            pass  # the version was pruned or deleted
    return folders


def _extent(path: pathlib.Path, offset: int, tail: int | None) -> tuple[int, int]:
    """Returns the first byte to send and the one after the last, since a log grows while it is sent."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            start = min(offset, end)
            if tail is not None:
                start = max(start, end - TAIL_BYTES)
                file.seek(start)
                lines = file.read(end - start).splitlines(keepends=True)
                start += sum(map(len, lines[:-tail]))
            return start, end
    except FileNotFoundError:
        return 0, 0


def _part(path: pathlib.Path, start: int, end: int) -> Iterator[bytes]:
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(CHUNK_BYTES, end - start)):
            start += len(chunk)
            yield chunk
