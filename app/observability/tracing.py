"""Traces by OpenTelemetry, which is an extra: this module is imported only where traces are asked for."""

import asyncio
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from app import __version__
from app.observability.observation import Batch, Observation
from app.observability.requests import Watcher

EXPORT_S = 3.0  # for a collector to take the spans; the end of the process waits as long
# probes and scrapes are the most frequent requests, and say the least
UNTRACED = ("/health", "/v2/health", "/grpc.health.", "/metrics")


def exporter(endpoint: str) -> SpanProcessor:
    """Returns a processor that sends spans by OTLP over HTTP, from its own thread. When its queue is full, it drops
    spans."""
    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S))


class Tracing(Watcher):
    """A span for each request, one below it for each stage, and one for each run of the model, with links to the
    requests whose images were in it.

    The sampler and the resource are OpenTelemetry's own; its environment variables set them.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        ours = Resource({"service.name": "resnext-service", "service.version": __version__})
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("resnext-service", __version__)
        self._headers = TraceContextTextMapPropagator()
        # from `time.perf_counter` to nanoseconds since 1970; read once, so that one span ends where the next begins
        self._offset = time.time_ns() - time.perf_counter_ns()

    def begin(self, scope: Scope, request: Observation) -> None:
        """Begins the request's span, below the one that a `traceparent` header names."""
        if scope["path"].startswith(UNTRACED):
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            scope["method"],
            self._headers.extract(headers),
            SpanKind.SERVER,
            {"http.request.method": scope["method"], "url.path": scope["path"], "resnext.request_id": request.id},
            start_time=self._at(request.started),
        )
        if span.is_recording():  # else the request is not in the sample
            request.span = span

    def end(self, scope: Scope, route: str, request: Observation, seconds: float) -> None:
        """Ends the span of a request that is over."""
        if not request.span:
            return
        span: Span = request.span
        at = self._at
        if request.received:
            self._stage(span, "receive", at(request.started), at(request.received))
        span.update_name(f"{scope['method']} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": request.status})
        if request.version:
            span.set_attributes({"resnext.model.version": int(request.version), "resnext.images": request.images})
        if request.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(at(request.started + seconds))

    def batch(self, batch: Batch) -> None:
        """Adds a run of the model to the trace of the first sampled request in it, with links to all of them; adds the
        stages of its images to their requests."""
        traced = [(image.request.span, image) for image in batch.queued if image.request and image.request.span]
        if not traced:
            return
        at = self._at
        begun, ended = at(batch.started), at(batch.started + batch.seconds)
        spans = dict.fromkeys(span for span, _ in traced)
        run = self._tracer.start_span(
            "batch",
            set_span_in_context(traced[0][0]),
            attributes={"resnext.images": batch.images, "resnext.closed": batch.closed},
            links=[Link(span.get_span_context()) for span in spans],
            start_time=begun,
        )
        if batch.failed:
            run.set_status(StatusCode.ERROR)
        run.end(ended)
        for span, image in traced:
            if decoding := image.decoding:
                self._stage(span, "decode", at(decoding.begun), at(decoding.ended))
            self._stage(span, "queue", at(image.since), begun)
            self._stage(span, "infer", begun, ended, Link(run.get_span_context()))

    async def __aexit__(self, *_: object) -> None:
        """Sends the spans that are left."""
        await asyncio.to_thread(self._provider.shutdown)

    def _at(self, seconds: float) -> int:
        """Returns a moment of `time.perf_counter` in OpenTelemetry's nanoseconds."""
        return self._offset + int(seconds * 1e9)

    def _stage(self, span: Span, name: str, begun: int, ended: int, *links: Link) -> None:
        self._tracer.start_span(name, set_span_in_context(span), links=links, start_time=begun).end(ended)
