"""The choice of settings to recommend, from the figures of a sweep."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from training.contract.manifest import Precision
from training.environment import ENV_PREFIX

TUNED = ("precision", "threads", "max_batch", "decode_threads")  # settings: fields of both Settings and Candidate
WORTHWHILE = 1.03  # times the images/s: less is noise, or not worth a line of configuration
SLOWER_ALONE = 1.10  # more images/s may cost a lone client at most this many times its latency
FASTER_ALONE = 1.10  # a latency this many times lower for a lone client pays without more images/s


@dataclass(frozen=True)
class Candidate:
    """Settings that are tried together. `max_batch` None is auto, which is `auto_batch` with these threads."""

    precision: Precision
    threads: int
    max_batch: int | None
    decode_threads: int
    auto_batch: int

    @property
    def batch(self) -> int:
        """The largest number of images in a run."""
        return self.max_batch or self.auto_batch

    def changes(self, baseline: "Candidate") -> dict[str, str]:
        """Returns the environment variables that turn the baseline into this candidate."""
        return {
            ENV_PREFIX + name.upper(): str(getattr(self, name))
            for name in TUNED
            if getattr(self, name) != getattr(baseline, name)
        }


@dataclass(frozen=True)
class Figures:
    """The measurements of one candidate. Latencies are of all requests of all rounds, in seconds."""

    rates: list[float]  # images/s with many clients, one for each round
    crowd: list[float]  # latencies with many clients
    alone: list[float]  # latencies with one client

    @property
    def rate(self) -> float:
        """Images/s in the middle round."""
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Comparison:
    """One candidate's figures as multiples of another's, measured in the same rounds."""

    rate: float  # images/s, the median of the rounds
    worst_rate: float
    best_rate: float
    alone: float  # median latency of a lone client: above 1 is slower

    @classmethod
    def of(cls, new: Figures, old: Figures) -> "Comparison":
        """Compares round by round, so that a slow moment of the machine counts against both."""
        ratios = [ours / theirs for ours, theirs in zip(new.rates, old.rates, strict=True)]
        slower = statistics.median(new.alone) / statistics.median(old.alone)
        return cls(statistics.median(ratios), min(ratios), max(ratios), slower)

    @property
    def more_images(self) -> bool:
        """Whether there are more images/s, by more than noise: 3 % in the middle, and more in every round."""
        return self.rate > WORTHWHILE and self.worst_rate > 1

    @property
    def pays(self) -> bool:
        """Whether there are more images/s and a lone client hardly waits longer, or as many and it waits much less."""
        if self.more_images:
            return self.alone < SLOWER_ALONE
        return self.alone * FASTER_ALONE < 1 and self.rate * WORTHWHILE > 1


def choose(baseline: Candidate, measured: Mapping[Candidate, Figures]) -> Candidate:
    """Returns the candidate with the most images/s among those that pay, else the baseline, which is in `measured`."""
    paying = [c for c in measured if c != baseline and Comparison.of(measured[c], measured[baseline]).pays]
    return max(paying, key=lambda candidate: measured[candidate].rate, default=baseline)


def for_load_alone(baseline: Candidate, measured: Mapping[Candidate, Figures]) -> Candidate | None:
    """Returns the one with the most images/s among those that do not pay only because a lone client waits longer."""
    compared = {c: Comparison.of(figures, measured[baseline]) for c, figures in measured.items() if c != baseline}
    costly = [c for c, comparison in compared.items() if comparison.more_images and not comparison.pays]
    return max(costly, key=lambda candidate: measured[candidate].rate, default=None)


def percentile(values: list[float], share: float) -> float:
    """Returns the smallest of the values that at least this share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
