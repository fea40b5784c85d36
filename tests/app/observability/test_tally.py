import pytest
from prometheus_client import CollectorRegistry, Histogram

from app.observability.tally import Tally

BOUNDS = (0.5, 1.0, 2.0)


def histogram() -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, Histogram("seconds", "of a test", ["stage"], buckets=BOUNDS, registry=registry).labels("infer")


def samples(registry: CollectorRegistry) -> dict[str, float]:
    found = [sample for metric in registry.collect() for sample in metric.samples]
    return {sample.name + sample.labels.get("le", ""): sample.value for sample in found}


def test_it_comes_to_what_the_histogram_itself_would_have_observed() -> None:
    registry, child = histogram()
    expected, itself = histogram()
    tally = Tally(child, BOUNDS)
    for amounts in ((0.0, 0.5, 0.50001), (1.0, 2.0, 2.5, 1e9), ()):
        for amount in amounts:
            tally.observe(amount)
            itself.observe(amount)
        tally.carry()
        assert samples(registry) == pytest.approx(samples(expected))


def test_it_shows_nothing_before_it_is_carried_over() -> None:
    registry, child = histogram()
    Tally(child, BOUNDS).observe(1.0)
    assert samples(registry)["seconds_count"] == 0
