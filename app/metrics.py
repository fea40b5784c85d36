"""Every gauge and counter, named once."""

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MEDIA_TYPE = CONTENT_TYPE_LATEST
# prometheus_client's own switch, read when it is imported: values lie in files there, and add up over processes
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The service's metrics, in a registry of its own."""

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
        self.swaps = Counter("resnext_swaps", "Versions that took over from another one", registry=registry)
        self.rollbacks = Counter(
            "resnext_rollbacks",
            "Times that the service went back by itself, because a version did not load or failed on images",
            ["reason"],
            registry=registry,
        )
        for reason in ("load", "errors"):
            self.rollbacks.labels(reason)  # there from the start: the first one must be an increase
        self.load_failures = Counter("resnext_load_failures", "Loads of a version that failed", registry=registry)
        self.queue = Gauge(
            "resnext_queue_images",
            "Images admitted and not yet answered",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def show_model(self, name: str, version: int, precision: str, provider: str) -> None:
        """Names the live version, in place of the one before."""
        if self._live:
            self._live.set(0)
        self._live = self._model.labels(name, str(version), precision, provider)
        self._live.set(1)

    def render(self) -> bytes:
        """The text that Prometheus reads, of type MEDIA_TYPE; of all processes where there are several."""
        if FOLDER not in os.environ:
            return generate_latest(self._registry)
        whole = CollectorRegistry()
        MultiProcessCollector(whole)  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(whole)


def forget_process(pid: int, folder: str) -> None:
    """Takes a process that has ended out of the gauges; what it counted stays."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # it has no types
