"""The service's gauges, counters and histograms, each named once."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app import __version__
from app.observability.observation import Batch, Closed, Dropped, Observation
from app.observability.tally import Tally
from app.observability.timing import Timing
from app.watch import KINDS, Kind

MEDIA_TYPE = CONTENT_TYPE_LATEST
# prometheus_client's own switch, read when it is imported: values lie in this folder's files and add up over processes
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MOST_KEY_NAMES = 1000  # over the life of a process whose file of keys changes; each is a series for each status
OTHER_KEYS = "other"
CARRY_S = 1.0  # how often this process shows its counts to the others

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
ROLLBACKS = ("load", "errors")
DROPPED: tuple[Dropped, ...] = ("rejected", "expired", "cancelled")
CLOSED: tuple[Closed, ...] = ("idle", "full", "delay")
STAGES = ("receive", "decode", "queue", "infer")

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each has one more series, with the time of its first count


def shared_folder() -> Path | None:
    """Returns the temporary folder that the processes on one port share; None when this is the only process."""
    folder = os.environ.get(FOLDER)
    return Path(folder) if folder else None


class Metrics:
    """The service's metrics, in a registry of its own. Requests are counted in the event loop's thread, batches in any.

    Counts of requests and batches are kept here and carried over into prometheus_client's metrics when somebody asks.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._model = Gauge(
            "resnext_model_info",
            "1 for the live version, 0 for one that was live before",
            ["model", "version", "precision", "provider"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._live: Gauge | None = None
        service = Gauge(
            "resnext_service_info",
            "1 for the service's own version",
            ["version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        service.labels(__version__).set(1)
        self.swaps = Counter("resnext_swaps", "Versions that took over from another one", registry=registry)
        self.rollbacks = Counter(
            "resnext_rollbacks",
            "Automatic returns to an earlier version, because one did not load or failed on images",
            ["reason"],
            registry=registry,
        )
        for reason in ROLLBACKS:
            self.rollbacks.labels(reason)  # there from the start, so that the first rollback shows as an increase
        self.load_failures = Counter("resnext_load_failures", "Loads of a version that failed", registry=registry)
        self._overdue = Counter(
            "resnext_overdue", "Pieces of work that took longer than their limit", ["work"], registry=registry
        )
        for kind in KINDS:
            self._overdue.labels(kind)
        self._queued = 0
        self._queue = Gauge(
            "resnext_queue_images",
            "Images admitted and not yet answered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_limit = Gauge(
            "resnext_queue_limit_images",
            "Images that may be admitted at one time",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._requests = Counter(
            "resnext_requests",
            "Requests answered, by the version of the model that they used, if any",
            ["method", "route", "status", "version"],
            registry=registry,
        )
        self._key_requests = Counter(
            "resnext_key_requests",
            "Requests that came with one of the service's API keys, by the name of the key",
            ["key", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "resnext_request_seconds",
            "Seconds from a request's first byte to its answer's last byte, for successes",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        stages = Histogram(
            "resnext_stage_seconds",
            "Seconds of each stage of a request that used the model, the longest of its images",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        dropped = Counter(
            "resnext_requests_dropped",
            "Requests refused by a full queue, not answered in time, or left by their client",
            ["reason"],
            registry=registry,
        )
        batches = Histogram(
            "resnext_batch_images",
            "Images in one run of the model, and why there were no more",
            ["closed"],
            buckets=IMAGES,
            registry=registry,
        )
        self._images = Counter("resnext_images", "Images that the model has answered", registry=registry)
        self._failed = Counter("resnext_images_failed", "Images in runs that failed", registry=registry)
        self._stages = [Tally(stages.labels(stage), SECONDS) for stage in STAGES]
        self._receive, self._decode, self._queue_wait, self._infer = self._stages
        self._dropped = {reason: dropped.labels(reason) for reason in DROPPED}
        self._batching = threading.Lock()  # guards the next two
        self._batches = {closed: Tally(batches.labels(closed), IMAGES) for closed in CLOSED}
        self._ran = {False: 0, True: 0}  # images, by whether their run failed
        self._counts: dict[tuple[str, str, int, str], int] = {}
        self._key_counts: dict[tuple[str, int], int] = {}
        self._key_names: set[str] = set()
        self._latencies: dict[tuple[str, str], Tally] = {}

    @contextlib.asynccontextmanager
    async def carried(self) -> AsyncIterator[None]:
        """Lets the other processes, if any, see what this one counts for the length of the block."""
        carrying = asyncio.create_task(self._carry_on()) if shared_folder() else None
        try:
            yield
        finally:
            if carrying:
                carrying.cancel()
            self._carry()

    def show_queue(self, images: int) -> None:
        """Shows how many images are admitted and not yet answered."""
        self._queued = images

    def show_model(self, name: str, version: int, precision: str, provider: str) -> None:
        """Shows the version that this process serves, in place of the one before."""
        if self._live:
            self._live.set(0)
        self._live = self._model.labels(name, str(version), precision, provider)
        self._live.set(1)

    def count_request(self, method: str, route: str, request: Observation, seconds: float) -> None:
        """Counts a request that is over; it took `seconds`."""
        key = (method, route, request.status, request.version)
        self._counts[key] = self._counts.get(key, 0) + 1
        if request.key:
            self._count_key(request.key, request.status)
        if request.status < 400:
            latency = self._latencies.get((method, route))
            if latency is None:
                latency = self._latencies[method, route] = Tally(self._seconds.labels(method, route), SECONDS)
            latency.observe(seconds)
        if request.dropped:
            self._dropped[request.dropped].inc()
        if request.timings:
            timing = Timing.longest(request.timings)
            self._receive.observe(request.received - request.started)
            self._decode.observe(timing.decode)
            self._queue_wait.observe(timing.queue)
            self._infer.observe(timing.infer)

    def _count_key(self, name: str, status: int) -> None:
        if len(self._key_names) < MOST_KEY_NAMES:
            self._key_names.add(name)
        known = name if name in self._key_names else OTHER_KEYS
        self._key_counts[known, status] = self._key_counts.get((known, status), 0) + 1

    def count_batch(self, batch: Batch) -> None:
        """Counts a run of the model. May be called in any thread."""
        with self._batching:
            self._batches[batch.closed].observe(batch.images)
            self._ran[batch.failed] += batch.images

    def count_overdue(self, kind: Kind) -> None:
        """Counts work that is over its limit. May be called in any thread."""
        self._overdue.labels(kind).inc()

    def render(self, asked: Iterable[Metric] = ()) -> bytes:
        """Returns the text that Prometheus reads, of type MEDIA_TYPE; where there are several processes, for all.

        `asked` are metrics that nobody keeps: they were measured for this scrape.
        """
        self._carry()
        whole = self._registry
        if shared_folder():
            whole = CollectorRegistry()
            MultiProcessCollector(whole)  # type: ignore[no-untyped-call]  # it has no types
        now = CollectorRegistry()
        now.register(_Asked(asked))
        return generate_latest(whole) + generate_latest(now)

    def _carry(self) -> None:
        for key, count in self._counts.items():
            self._requests.labels(*key).inc(count)
        self._counts.clear()
        for labels, count in self._key_counts.items():
            self._key_requests.labels(*labels).inc(count)
        self._key_counts.clear()
        for tally in [*self._stages, *self._latencies.values()]:
            tally.carry()
        with self._batching:
            for tally in self._batches.values():
                tally.carry()
            self._images.inc(self._ran[False])
            self._failed.inc(self._ran[True])
            self._ran = {False: 0, True: 0}
        self._queue.set(self._queued)

    async def _carry_on(self) -> None:
        while True:
            await asyncio.sleep(CARRY_S)
            self._carry()


class _Asked(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def forget_process(pid: int, folder: str) -> None:
    """Takes a process that has ended out of the gauges; its counts stay."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # it has no types
