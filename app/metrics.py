"""Every gauge and counter, named once."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The service's metrics, in a registry of its own; `queue_images` is asked at each scrape."""

    def __init__(self, queue_images: Callable[[], float] = lambda: 0) -> None:
        registry = self._registry = CollectorRegistry()
        self._model = Gauge(
            "resnext_model_info",
            "The live version, always 1",
            ["model", "version", "precision", "provider"],
            registry=registry,
        )
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
        queue = Gauge("resnext_queue_images", "Images admitted and not yet answered", registry=registry)
        queue.set_function(queue_images)

    def show_model(self, name: str, version: int, precision: str, provider: str) -> None:
        """Names the live version, in place of the one before."""
        self._model.clear()
        self._model.labels(name, str(version), precision, provider).set(1)

    def render(self) -> bytes:
        """The text that Prometheus reads, of type MEDIA_TYPE."""
        return generate_latest(self._registry)
