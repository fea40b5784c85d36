"""The answers of the Open Inference Protocol, for REST and gRPC alike.

A name with $ is that of an object in the protocol."""

import asyncio
from contextlib import AbstractAsyncContextManager

import numpy as np

from app import __version__
from app.api.access.granted import may
from app.api.numbers import whole_number
from app.api.open_inference.tensors import InferRequest, Output, Requested
from app.errors import InvalidRequest, ModelNotFound, NotSupported, VersionNotFound, VersionNotLive
from app.execution.model import Model
from app.inference.batcher import Answer
from app.inference.deployment import Deployment
from app.inference.infer import most_likely
from app.inference.statistics import Statistics, Total
from app.rollout.serving import Serving
from app.services import Services
from training.contract.manifest import INPUT_NAME, OUTPUT_NAME
from training.errors import ContractError

SERVER_NAME = "resnext-service"
PLATFORM = "onnxruntime_onnx"
# Triton's names of the extensions that are complete here; priorities, shared memory, sequences and traces are not
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]


def server_metadata() -> dict[str, object]:
    """Returns $metadata_server_response."""
    return {"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS}


async def live_as(serving: Serving, name: str | None = None, version: str | None = None) -> Deployment:
    """Returns the live deployment if it has the name and the version that the client gave. Either may be left out.

    Raises InvalidRequest, ModelNotFound, VersionNotFound, NoModel, and VersionNotLive for a version that exists and is
    not loaded.
    """
    model_known(serving, name)
    if not version:
        return serving.deployment()
    number = whole_number(version)
    if number is None:
        raise InvalidRequest(f"a model version should be a number, got {version[:40]!r}")
    if serving.live is None or serving.live.model.version != number:
        await serving.require(number)
        now = f"version {serving.live.model.version} is" if serving.live else "none is"
        raise VersionNotLive(f"{serving.repository.name!r} version {version} is not at ready state; {now} live")
    return serving.live


def model_known(serving: Serving, name: str | None) -> None:
    """Raises ModelNotFound unless `name` is that of the one served model, or missing."""
    if name and name != serving.repository.name:
        raise ModelNotFound(f"Request for unknown model: {name!r} is not found; {serving.repository.name!r} is served")


def model_metadata(model: Model) -> dict[str, object]:
    """Returns $metadata_model_response. It cannot say that the input may also be BYTES [-1], encoded images."""
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, *model.shape]}],
        "outputs": [{"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(model.labels)]}],
    }


def model_config(model: Model, max_batch: int) -> dict[str, object]:
    """Returns Triton's ModelConfig as JSON: the repository's config.pbtxt, with this service's own batch limit."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [model.version]}},
        "max_batch_size": max_batch,
        "input": [{"name": INPUT_NAME, "data_type": "TYPE_UINT8", "dims": list(model.shape)}],
        "output": [
            {
                "name": OUTPUT_NAME,
                "data_type": "TYPE_FP32",
                "dims": [len(model.labels)],
                "label_filename": "labels.txt",
            }
        ],
        "dynamic_batching": {},
    }


def model_statistics(live: Deployment) -> dict[str, object]:
    """Returns $model_stat, which counts requests of every protocol since the version went live.

    Decoding is `compute_input`. perf_analyzer wants the three parts of computing to have the same count, so
    `compute_output` has it too, with a time of 0.
    """
    done: Statistics = live.statistics
    none = _duration(Total())
    return {
        "name": live.model.name,
        "version": str(live.model.version),
        "last_inference": int(1000 * done.last),
        "inference_count": done.images,
        "execution_count": sum(run.count for run in list(done.runs.values())),
        "inference_stats": {
            "success": _duration(done.success),
            "fail": _duration(done.fail),
            "queue": _duration(done.queue),
            "compute_input": _duration(done.decode),
            "compute_infer": _duration(done.infer),
            "compute_output": _duration(Total(done.success.count)),
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(Total(run.count)),
                "compute_infer": _duration(run),
                "compute_output": _duration(Total(run.count)),
            }
            for size, run in sorted(done.runs.items())
        ],
    }


async def repository_index(services: Services, ready: bool) -> list[dict[str, str]]:
    """Lists every version with its state, or with `ready` the live version alone; reasons for who may train."""
    serving = services.serving
    live = serving.live.model.version if services.ready and serving.live else None
    versions, reasons = await asyncio.to_thread(_versions, serving)
    if not may("train"):
        reasons = {}
    return [
        {
            "name": serving.repository.name,
            "version": str(version),
            "state": "READY" if version == live else "UNAVAILABLE",
            "reason": "" if version == live else reasons.get(version, "not live"),
        }
        for version in versions
        if version == live or not ready
    ]


async def load(serving: Serving, name: str, parameters: dict[str, object]) -> None:
    """Makes a version live, as POST /models/{version}/activate does.

    The version is the parameter `version`, else the active one, else the newest.

    Raises ModelNotFound, VersionNotFound, VersionUnusable, InvalidRequest.
    """
    model_known(serving, name)
    if unknown := parameters.keys() - {"version"}:
        raise InvalidRequest(f"the load parameters {sorted(unknown)} are not supported; 'version' is the only one")
    version = parameters.get("version")
    if version is None:
        await serving.activate(await asyncio.to_thread(_default_version, serving))
        return
    text = str(version)  # True is "True"
    number = whole_number(text)
    if number is None:
        raise InvalidRequest(f"the load parameter 'version' should be a number, got {text[:40]!r}")
    await serving.activate(number)


def unload(serving: Serving, name: str) -> None:
    """Refuses: the only model stays loaded. Raises NotSupported, ModelNotFound."""
    model_known(serving, name)
    raise NotSupported(
        f"{name!r} is the only model of this service and stays loaded: load another version in its place, "
        "or stop the service"
    )


async def model_infer(
    request: InferRequest, live: Deployment, services: Services, until: AbstractAsyncContextManager[None]
) -> list[Output]:
    """Runs the model and returns the outputs that the request asks for. The caller holds a lease on `live`.

    Raises InvalidRequest, NoValidImage, QueueFull, InferenceFailed, and what `until` raises.
    """
    if len(request.images) > services.settings.max_files:
        raise InvalidRequest(
            f"inference request batch-size must be <= {services.settings.max_files} for {live.model.name!r}, "
            f"got {len(request.images)}"
        )
    outcomes = await services.inference.infer(list(request.images), live, until, partial=False)
    rows = [outcome.probabilities for outcome in outcomes if isinstance(outcome, Answer)]
    return [_output(rows, asked, live.model.labels) for asked in request.outputs]


def seconds_of(request: InferRequest, services: Services) -> float:
    """Returns how long the request may take, in seconds. A client can only shorten the service's own limit."""
    return min(request.timeout or services.settings.request_timeout, services.settings.request_timeout)


def _output(
    rows: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], asked: Requested, labels: list[str]
) -> Output:
    if not asked.classes:
        return Output(np.stack(rows))
    return Output([[f"{row[i]:.6f}:{i}:{labels[i]}" for i in most_likely(row, asked.classes)] for row in rows])


def _duration(total: Total) -> dict[str, int]:
    return {"count": total.count, "ns": int(1e9 * total.seconds)}


def _versions(serving: Serving) -> tuple[list[int], dict[int, str]]:
    try:
        reasons = {version: failure.reason for version, failure in serving.repository.failures().items()}
    except ContractError as error:
        reasons = dict.fromkeys(serving.repository.versions(), serving.reason(error))
    return serving.repository.versions(), reasons


def _default_version(serving: Serving) -> int:
    try:
        active = serving.repository.active()
    except ContractError as error:
        raise InvalidRequest(f"{serving.reason(error)}; 'version' chooses one") from None
    versions = serving.repository.versions()
    if active is None and not versions:
        raise VersionNotFound(f"model {serving.repository.name!r} has no version")
    return active if active is not None else versions[-1]
