"""A sweep: the active version under other settings, timed on this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.execution.latency import powers_of_two
from app.execution.loading import load_model
from app.execution.model import Model
from app.execution.package import ModelError
from app.execution.probe import choose_provider
from app.execution.provider import PROVIDERS
from app.execution.session import Execution
from app.settings import Settings
from app.tuning.recommendation import TUNED, Candidate, Comparison, Figures, choose, for_load_alone
from app.tuning.workload import Load, drive, photos
from training.contract.manifest import Precision
from training.contract.repository import ModelRepository

ROUNDS = 3
LAST_ROUNDS = 5  # of the best against the present settings: the best of many is also the luckiest


class NothingToTune(Exception):
    """There is no active version. The message is one line for the operator."""


@dataclass(frozen=True)
class Stage:
    """Candidates that were measured in the same rounds."""

    name: str
    measured: Mapping[Candidate, Figures]

    def compare(self, new: Candidate, old: Candidate) -> Comparison:
        """Compares two candidates of this stage."""
        return Comparison.of(self.measured[new], self.measured[old])


@dataclass(frozen=True)
class Proposal:
    """Settings that differ from the present ones, and how they compare."""

    settings: dict[str, str]
    comparison: Comparison


@dataclass(frozen=True)
class Outcome:
    """The result of a sweep.

    `best` is what to set, None where the present settings are as good. `for_load_alone` gives more images/s and makes a
    lone client wait longer.
    """

    stages: list[Stage]
    best: Proposal | None
    for_load_alone: Proposal | None


class Sweep:
    """A search among the settings that are left at auto; what is set stays as it is.

    It does not try all with all: first each precision with each number of threads, then, from the best of these,
    batches and decoding threads one at a time.
    """

    def __init__(
        self,
        settings: Settings,
        seconds: float,
        clients: int,
        image_size: tuple[int, int],
        cores: int,
        tell: Callable[[str], object],
    ) -> None:
        """Takes about `seconds` for measuring; `image_size` is width and height. Calls `tell` with its progress.

        Raises NothingToTune, ProviderError.
        """
        self.repository = ModelRepository(settings.models, settings.model)
        version = self.repository.active()
        if version is None:
            raise NothingToTune(
                f"no version of {settings.model!r} is active in {settings.models}: "
                "train one with `resnext train DIR`, or make one with `make starter`"
            )
        self.version = version
        self.settings = settings
        self.provider = choose_provider(settings.provider)
        self.cores = cores
        self.clients = min(clients, settings.queue_size)
        self.image_size = image_size
        self.pinned = [name for name in TUNED if getattr(settings, name) != "auto"]
        self._seconds = seconds
        self._tell = tell
        self._models: dict[tuple[Precision, int], Model] = {}  # by precision and threads

    def run(self) -> Outcome:
        """Loads, measures, decides. Raises ContractError, ModelError, InferenceFailed, ImageError."""
        begun = time.perf_counter()
        self._load_models()
        self._photos = photos(*self.image_size)
        self._tell(f"ready in {time.perf_counter() - begun:.0f} s; measuring takes about {self._seconds:.0f} s")
        now = self._what_is_set()
        first = self._measure("precision and threads", [self._candidate(*key, now) for key in self._models])
        stages, best = [first], choose(now, first.measured)
        if variations := self._variations(best):
            stages.append(self._measure("batches and decoding", [best, *variations]))
            best = choose(best, stages[-1].measured)
        proposal = None
        if best != now:
            last = self._measure("the best against what is set now", [now, best], LAST_ROUNDS)
            stages.append(last)
            if last.compare(best, now).pays:
                proposal = Proposal(best.changes(now), last.compare(best, now))
        costly = for_load_alone(now, first.measured)
        remark = Proposal(costly.changes(now), first.compare(costly, now)) if costly else None
        return Outcome(stages, proposal, remark)

    def _load_models(self) -> None:
        chosen = self.settings.precision
        variants = self.repository.manifest(self.version).variants
        tried = [name for name in PROVIDERS[self.provider].precisions if name in variants]
        precisions = tried if chosen == "auto" else [chosen]
        fault = None
        for precision in precisions:
            for threads in self._thread_counts():
                self._tell(f"loading {precision}, threads: {threads}")
                try:
                    self._models[precision, threads] = self._load(precision, threads)
                except ModelError as error:
                    fault = error
                    self._tell(f"{precision} is left out: {error}")
                    break
        if fault and not self._models:
            raise fault

    def _load(self, precision: Precision, threads: int) -> Model:
        limit, max_batch = self.settings.queue_size, self.settings.max_batch
        return load_model(self.repository, self.version, Execution(self.provider, threads), precision, max_batch, limit)

    def _thread_counts(self) -> list[int]:
        if self.settings.threads != "auto":
            return [self.settings.threads]
        return [self.cores] if PROVIDERS[self.provider].nvidia else powers_of_two(self.cores)

    def _what_is_set(self) -> Candidate:
        """Returns the present settings; of the precisions the service takes the one that is fastest image by image."""
        threads = max(count for _, count in self._models)
        speeds = {p: model.measured.speeds[p] for (p, count), model in self._models.items() if count == threads}
        max_batch = None if self.settings.max_batch == "auto" else self.settings.max_batch
        decode_threads = self.cores if self.settings.decode_threads == "auto" else self.settings.decode_threads
        precision = max(speeds, key=speeds.__getitem__)
        auto_batch = self._models[precision, threads].measured.crowd.batch
        return Candidate(precision, threads, max_batch, decode_threads, auto_batch)

    def _candidate(self, precision: Precision, threads: int, now: Candidate) -> Candidate:
        auto_batch = self._models[precision, threads].measured.crowd.batch
        return replace(now, precision=precision, threads=threads, auto_batch=auto_batch)

    def _variations(self, best: Candidate) -> list[Candidate]:
        """Returns the best candidate with another batch or other decoding threads."""
        sizes: list[int] = []
        if "max_batch" not in self.pinned:  # a batch has at most an image of each client
            curve = self._models[best.precision, best.threads].measured.crowd.seconds
            sizes = [n for n in curve if best.batch != n <= self.clients]
        counts: list[int] = []
        if "decode_threads" not in self.pinned and not self._models[best.precision, best.threads].streams:
            counts = [n for n in powers_of_two(self.cores) if n != best.decode_threads]
        return [*(replace(best, max_batch=n) for n in sizes), *(replace(best, decode_threads=n) for n in counts)]

    def _measure(self, name: str, candidates: Sequence[Candidate], rounds: int = ROUNDS) -> Stage:
        """Measures the candidates in turn, `rounds` times, so that whatever else the machine does hits all of them."""
        measured = {candidate: Figures([], [], []) for candidate in candidates}
        for number in range(rounds):
            self._tell(f"{name}: round {number + 1} of {rounds}")
            for candidate, figures in measured.items():
                crowd = self._drive(candidate, self.clients)
                figures.rates.append(crowd.rate)
                figures.crowd.extend(crowd.latencies)
                figures.alone.extend(self._drive(candidate, 1).latencies)
        return Stage(name, measured)

    def _drive(self, candidate: Candidate, clients: int) -> Load:
        model = self._models[candidate.precision, candidate.threads]
        return drive(self._photos, model, candidate, self.settings.batch_delay / 1000, clients, self._load_seconds())

    def _load_seconds(self) -> float:
        """Returns the seconds for one load, so that all take about the time asked for.

        It estimates: how many stages there are, and of how many candidates, shows only on the way.
        """
        batches = max(len(model.measured.crowd.seconds) for model in self._models.values())
        candidates = len(self._models) + batches + self.cores.bit_length()
        return self._seconds / (2 * (ROUNDS * candidates + 2 * LAST_ROUNDS))
