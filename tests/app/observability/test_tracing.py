import asyncio
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio

from app.main import create_app
from app.settings import Settings, SettingsError
from tests.app.conftest import Serve
from tests.app.network import encoded, network, publish, random_images
from tests.process import free_port
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

IMAGE = encoded(random_images(1)[0])
Span = Any  # a protobuf, where there are any


class Collector:
    """A stand-in for OpenTelemetry's collector: it takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.url = ""

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: Span) -> dict[str, list[Span]]:
        """Returns the spans below a span, by name."""
        found = defaultdict(list)
        for span in self.spans:
            if span.parent_span_id == parent.span_id:
                found[span.name].append(span)
        return found


@contextmanager
def collector() -> Iterator[Collector]:
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    pytest.importorskip("opentelemetry.sdk")
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in service.ExportTraceServiceRequest.FromString(body).resource_spans:
                collected.resource = {item.key: item.value.string_value for item in resource.resource.attributes}
                collected.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collected.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()


def traceparent(trace: int, *, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace:032x}-{7:016x}-{int(sampled):02x}"}


def attributes(span: Span) -> dict[str, object]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


async def test_each_stage_is_a_span_and_a_batch_is_linked_with_its_requests(
    serve: Serve, repository: ModelRepository
) -> None:
    publish(repository, 1)
    traces = [0xA, 0xB, 0xC]
    with collector() as collected:
        async with serve(otlp_endpoint=collected.url, max_batch=3, batch_delay=1000) as (client, _):
            asked = (client.post("/predict", content=IMAGE, headers=traceparent(trace)) for trace in traces)
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
    assert collected.resource["service.name"] == "resnext-service"
    requests = collected.named("POST /predict")
    (batch,) = collected.named("batch")
    assert sorted(int.from_bytes(span.trace_id) for span in requests) == traces
    assert {int.from_bytes(span.parent_span_id) for span in requests} == {7}
    assert {link.span_id for link in batch.links} == {span.span_id for span in requests}
    assert attributes(batch) == {"resnext.images": 3, "resnext.closed": "full"}
    for request in requests:
        assert (
            attributes(request).items()
            >= {
                "http.request.method": "POST",
                "http.route": "/predict",
                "http.response.status_code": 200,
                "resnext.model.version": 1,
                "resnext.images": 1,
            }.items()
        )
        stages = collected.below(request)
        (receive,), (decode,), (queue,), (infer,) = (stages[name] for name in ("receive", "decode", "queue", "infer"))
        assert [link.span_id for link in infer.links] == [batch.span_id]
        assert {span.trace_id for (span, *_) in stages.values()} == {request.trace_id}
        moments = [request.start_time_unix_nano, receive.start_time_unix_nano, receive.end_time_unix_nano]
        moments += [decode.start_time_unix_nano, queue.start_time_unix_nano, infer.start_time_unix_nano]
        moments += [infer.end_time_unix_nano, request.end_time_unix_nano]
        assert moments == sorted(moments)
        assert queue.end_time_unix_nano == infer.start_time_unix_nano


async def test_a_request_of_many_images_has_as_many_spans_of_each(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    with collector() as collected:
        async with serve(otlp_endpoint=collected.url, max_batch=2, batch_delay=1000) as (client, _):
            files = [("file", ("a.png", IMAGE))] * 2
            assert (await client.post("/predict", files=files)).status_code == 200
    (request,) = collected.named("POST /predict")
    (batch,) = collected.named("batch")
    assert {name: len(spans) for name, spans in collected.below(request).items()} == {
        "receive": 1,
        "decode": 2,
        "queue": 2,
        "batch": 1,
        "infer": 2,
    }
    assert len(batch.links) == 1


async def test_what_the_caller_does_not_sample_is_not_sent(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    with collector() as collected:
        async with serve(otlp_endpoint=collected.url) as (client, _):
            await client.post("/predict", content=IMAGE, headers=traceparent(1, sampled=False))
            await client.post("/predict", content=IMAGE, headers={"traceparent": "nonsense"})
            await client.get("/health/live")
            await client.get("/metrics")
    (request,) = collected.named("POST /predict")
    assert int.from_bytes(request.trace_id) not in (0, 1)
    assert {span.trace_id for span in collected.spans} == {request.trace_id}


async def test_a_call_over_grpc_is_traced_as_a_request_is(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    port = free_port()
    with collector() as collected:
        async with (
            serve(otlp_endpoint=collected.url, grpc_port=port),
            tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ):
            image = tritonclient.grpc.aio.InferInput("image", [1], "BYTES")
            image.set_data_from_numpy(np.array([IMAGE], np.object_))
            await client.infer("resnext50", [image], headers=traceparent(0xA) | {"x-request-id": "mine"})
    (request,) = collected.named("POST /inference.GRPCInferenceService/ModelInfer")
    assert (int.from_bytes(request.trace_id), int.from_bytes(request.parent_span_id)) == (0xA, 7)
    assert attributes(request)["resnext.request_id"] == "mine"
    assert attributes(request)["http.response.status_code"] == 200
    assert set(collected.below(request)) == {"receive", "decode", "queue", "batch", "infer"}


async def test_failures_are_marked(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1, model=network(1, slow=True))
    with collector() as collected:
        async with serve(otlp_endpoint=collected.url, request_timeout=0.001) as (client, _):
            assert (await client.post("/predict", content=IMAGE)).status_code == 504
            assert (await client.get("/nowhere")).status_code == 404
    (late,), (unknown,) = collected.named("POST /predict"), collected.named("GET other")
    assert (late.status.code, unknown.status.code) == (2, 0)


async def test_a_collector_that_is_away_harms_nobody(serve: Serve, repository: ModelRepository) -> None:
    pytest.importorskip("opentelemetry.sdk")
    publish(repository, 1)
    async with serve(otlp_endpoint=f"http://127.0.0.1:{free_port()}") as (client, _):
        assert (await client.post("/predict", content=IMAGE)).status_code == 200


def test_without_the_extra_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.observability.tracing", None)  # as if its imports had failed
    with pytest.raises(SettingsError, match=r"RESNEXT_OTLP_ENDPOINT needs .*resnext-service\[otel\]"):
        create_app(Settings(provider="cpu", otlp_endpoint="http://localhost:4318"))


def test_where_no_traces_are_asked_for_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from app.main import create_app; from app.settings import Settings; create_app(Settings());"
        "absent = 'opentelemetry.sdk', 'app.observability.tracing';"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith(absent)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 1)  # sys.exit('') is 1, with nothing to say
