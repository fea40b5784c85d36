"""The scopes of API keys, and one table that says which scope each route needs."""

import functools
from collections.abc import Mapping
from typing import Literal, get_args

from starlette.routing import compile_path

Scope = Literal["predict", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)  # each includes those before it
OPEN = None  # needs no key

KNOWN_PATHS = 1024
LONGEST_KNOWN = 256  # characters; a client makes up the others, and they are not kept

_RPC = "POST /inference.GRPCInferenceService"

# By method and path as in the OpenAPI document; a gRPC call is a POST to its method's path. GET stands for HEAD too.
REQUIRED: Mapping[str, Scope | None] = {
    "GET /": OPEN,
    "GET /docs": OPEN,
    "GET /docs/{file}": OPEN,
    "GET /openapi.json": OPEN,
    "GET /health": OPEN,  # it shows more to a caller who may train
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /v2/health/live": OPEN,
    "GET /v2/health/ready": OPEN,
    f"{_RPC}/ServerLive": OPEN,
    f"{_RPC}/ServerReady": OPEN,
    "POST /grpc.health.v1.Health/Check": OPEN,
    # asks the model, and reads what is served
    "POST /predict": "predict",
    "GET /models": "predict",
    "GET /models/{version}": "predict",
    "GET /metrics": "predict",
    "GET /v2": "predict",
    "GET /v2/models/stats": "predict",
    "GET /v2/models/{name}": "predict",
    "GET /v2/models/{name}/versions/{version}": "predict",
    "GET /v2/models/{name}/ready": "predict",
    "GET /v2/models/{name}/versions/{version}/ready": "predict",
    "GET /v2/models/{name}/config": "predict",
    "GET /v2/models/{name}/versions/{version}/config": "predict",
    "GET /v2/models/{name}/stats": "predict",
    "GET /v2/models/{name}/versions/{version}/stats": "predict",
    "POST /v2/models/{name}/infer": "predict",
    "POST /v2/models/{name}/versions/{version}/infer": "predict",
    "POST /v2/repository/index": "predict",
    f"{_RPC}/ModelReady": "predict",
    f"{_RPC}/ServerMetadata": "predict",
    f"{_RPC}/ModelMetadata": "predict",
    f"{_RPC}/ModelConfig": "predict",
    f"{_RPC}/ModelStatistics": "predict",
    f"{_RPC}/ModelInfer": "predict",
    f"{_RPC}/RepositoryIndex": "predict",
    # uploads and trains. The gate decides whether what comes out becomes live
    "GET /datasets": "train",
    "GET /datasets/{name}": "train",
    "PUT /datasets/{name}": "train",
    "DELETE /datasets/{name}": "train",
    "POST /train": "train",
    "GET /train": "train",
    "GET /train/{id}": "train",
    "GET /train/{id}/events": "train",
    "GET /train/{id}/log": "train",
    "GET /train/{id}/report/{file}": "train",
    "POST /train/{id}/cancel": "train",
    "POST /train/{id}/resume": "train",
    # decides what everybody is answered with
    "POST /models/{version}/activate": "admin",
    "DELETE /models/{version}": "admin",
    "POST /v2/repository/models/{name}/load": "admin",
    "POST /v2/repository/models/{name}/unload": "admin",
    f"{_RPC}/RepositoryModelLoad": "admin",
    f"{_RPC}/RepositoryModelUnload": "admin",
}
# A path that is no route, and a method that a route does not have: any key is told so, a stranger is not
UNKNOWN: Scope = "predict"

_routes = [(method, compile_path(path)[0], f"{method} {path}") for method, path in map(str.split, REQUIRED)]


def includes(scope: Scope | None, needed: Scope) -> bool:
    """Whether a scope is the one that is needed, or a larger one. None is no scope at all."""
    return scope is not None and SCOPES.index(scope) >= SCOPES.index(needed)


def required(method: str, path: str) -> Scope | None:
    """Returns the scope that a request needs, by its method and its path; OPEN where it needs no key."""
    return _kept(method, path) if len(path) <= LONGEST_KNOWN else _find(method, path)


def _find(method: str, path: str) -> Scope | None:
    asked = "GET" if method == "HEAD" else method
    found = next((route for known, pattern, route in _routes if known == asked and pattern.match(path)), None)
    return UNKNOWN if found is None else REQUIRED[found]


_kept = functools.lru_cache(KNOWN_PATHS)(_find)
