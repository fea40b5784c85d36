"""Which settings to recommend, by the figures of a sweep."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from training.contract.manifest import Precision
from training.limits import ENV_PREFIX

TUNED = ("precision", "threads", "max_batch", "decode_threads")  # settings, as fields of Settings and of Candidate
WORTHWHILE = 1.03  # times the images/s: what differs less is noise, or not worth a line of configuration
SLOWER_ALONE = 1.10  # times the latency of a lone client, at most, that more images/s may cost
FASTER_ALONE = 1.10  # times less latency of a lone client that pays by itself


@dataclass(frozen=True)
class Candidate:
    """Settings that are tried together. `max_batch` None is auto, and that is `auto_batch` with these threads."""

    precision: Precision
    threads: int
    max_batch: int | None
    decode_threads: int
    auto_batch: int

    @property
    def batch(self) -> int:
        """Images of a run, at most."""
        return self.max_batch or self.auto_batch

    def changes(self, baseline: "Candidate") -> dict[str, str]:
        """The environment variables that make this of the baseline."""
        return {
            ENV_PREFIX + name.upper(): str(getattr(self, name))
            for name in TUNED
            if getattr(self, name) != getattr(baseline, name)
        }


@dataclass(frozen=True)
class Figures:
    """What was measured of one candidate. Latencies are in seconds, of all requests of all rounds."""

    rates: list[float]  # images/s with many clients, one of each round
    crowd: list[float]
    alone: list[float]  # with one client

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Comparison:
    """One candidate's figures as multiples of another's, measured in the same rounds."""

    rate: float  # the median of the rounds
    worst_rate: float
    best_rate: float
    alone: float  # of the latencies' medians: above 1 is slower

    @classmethod
    def of(cls, new: Figures, old: Figures) -> "Comparison":
        ratios = [ours / theirs for ours, theirs in zip(new.rates, old.rates, strict=True)]
        slower = statistics.median(new.alone) / statistics.median(old.alone)
        return cls(statistics.median(ratios), min(ratios), max(ratios), slower)

    @property
    def more_images(self) -> bool:
        """By more than noise: by 3 % in the middle, and in every round."""
        return self.rate > WORTHWHILE and self.worst_rate > 1

    @property
    def pays(self) -> bool:
        """More images/s at hardly any cost to a lone client, or as many and a lone client is answered faster."""
        if self.more_images:
            return self.alone < SLOWER_ALONE
        return self.alone * FASTER_ALONE < 1 and self.rate * WORTHWHILE > 1


def choose(baseline: Candidate, measured: Mapping[Candidate, Figures]) -> Candidate:
    """The baseline, or of those that pay the one with the most images/s. `measured` holds the baseline."""
    paying = [c for c in measured if c != baseline and Comparison.of(measured[c], measured[baseline]).pays]
    return max(paying, key=lambda candidate: measured[candidate].rate, default=baseline)


def for_load_alone(baseline: Candidate, measured: Mapping[Candidate, Figures]) -> Candidate | None:
    """The one with the most images/s among those that do not pay only because a lone client waits longer."""
    compared = {c: Comparison.of(figures, measured[baseline]) for c, figures in measured.items() if c != baseline}
    costly = [c for c, comparison in compared.items() if comparison.more_images and not comparison.pays]
    return max(costly, key=lambda candidate: measured[candidate].rate, default=None)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not below that share of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
