import inspect
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.api.access.scopes import REQUIRED, SCOPES, includes, required
from app.api.open_inference.grpc_service import Health, InferenceService
from app.main import create_app
from app.settings import Settings

GRPC: list[tuple[Any, Any, Any]] = [  # Any: protobuf's generated classes have no types
    (service_pb2.DESCRIPTOR, service_pb2_grpc.GRPCInferenceServiceServicer, InferenceService),
    (health_pb2.DESCRIPTOR, health_pb2_grpc.HealthServicer, Health),
]


def routes() -> set[str]:
    """Returns every route of the OpenAPI document, the pages, and every gRPC call that is offered."""
    app = create_app(Settings(provider="cpu"))
    rest = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    pages = {f"GET {path}" for path in ("/", "/docs", "/docs/{file}", "/openapi.json")}
    calls = {
        f"POST /{service.full_name}/{name}"
        for file, base, ours in GRPC
        for service in file.services_by_name.values()
        for name, _ in inspect.getmembers(base, inspect.isfunction)
        if getattr(ours, name) is not getattr(base, name)
    }
    assert len(calls) >= 12
    return rest | pages | calls


def test_every_route_stands_in_the_table_and_no_other() -> None:
    """A new route without a scope fails here."""
    assert routes() == REQUIRED.keys()


def test_each_route_is_found_by_the_path_of_a_request() -> None:
    for route, scope in REQUIRED.items():
        method, path = route.replace("{", "").replace("}", "").split()
        assert required(method, path) == scope, route
        if method == "GET":
            assert required("HEAD", path) == scope


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthy"),
        ("POST", "/health"),
        ("GET", "/docs/a/b"),
        ("GET", "/nowhere"),
        ("get", "/health"),
        ("PATCH", "/models/1"),
        ("POST", "/inference.GRPCInferenceService/SystemSharedMemoryStatus"),
    ],
)
def test_what_is_no_route_is_no_open_one(method: str, path: str) -> None:
    assert required(method, path) == "predict"


def test_what_changes_something_needs_more_than_predict() -> None:
    harmless = {"POST /predict", "POST /v2/repository/index"}
    for route, scope in REQUIRED.items():
        method, path = route.split()
        reads = method == "GET" or path.endswith("/infer") or (path.startswith("/inference.") and "Load" not in path)
        if not reads and route not in harmless and "Unload" not in route and "Health" not in route:
            assert scope in ("train", "admin"), route


def test_a_scope_includes_the_smaller_ones() -> None:
    for n, scope in enumerate(SCOPES):
        assert [includes(scope, other) for other in SCOPES] == [m <= n for m in range(len(SCOPES))]
        assert not includes(None, scope)
