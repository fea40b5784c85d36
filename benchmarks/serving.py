"""`make bench`: the service and its peers under the same load, beside the most that the hardware could do.

Each round starts every server again, measures the bound just before, and sends the same photographs to all of them;
every answer is checked. Writes `.bench/serving.json` and the section of docs/benchmarks.md between its two markers.
"""

import argparse
import functools
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bound import Bound, Raw
from benchmarks.load import Plan, drive
from benchmarks.machine import machine
from benchmarks.peers.classifier import decode as plain_decode
from benchmarks.photos import phone_photos, small_photos, thumbnails
from benchmarks.report import LIBRARIES, SCENARIOS, SWAP, Findings, Sample, Scenario, SwapSample, write
from benchmarks.servers import BENCH, MODEL, MODELS, PROVIDER, ROOT, SERVERS, Running, installed, running
from training.contract.manifest import Precision
from training.contract.repository import ModelRepository
from training.images.decode import decode

FOUND = BENCH / "serving.json"
WARM_UP_S = 1.0
WARM_UP_TURNS = 1.5  # answers to every client, at least
BOUND_S = 0.5
SWAP_LOAD = 0.5  # of the bound
SWAP_S = 10.0  # longer than a swap takes
SETTLE_S = 3.0  # until the requests that gathered meanwhile are answered


class Bench:
    """The parts that all measurements share: photographs, raw models, seconds of a measurement."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.photos = {"small": small_photos(), "phone": phone_photos(), "thumbnail": thumbnails()}

    def visit(self, round_: int, name: str, scenarios: dict[str, Scenario]) -> list[Sample]:
        """Starts a server, puts it under these loads and ends it. All have one network, and one client or many."""
        network, crowd = next((s.network, s.clients > 1) for s in scenarios.values())
        # before it starts: some servers compute while nobody asks
        photos = {s.photos: self.photos[s.photos] for s in scenarios.values()}
        ours, precisions = SERVERS[name].ours, SERVERS[name].precisions
        bounds = {p: self.raw(network, p, ours).measure(photos, BOUND_S) for p in precisions}
        with running(name, MODELS / network, self.photos["small"][0], crowd) as server:
            precision: Precision = server.model()["precision"] if ours else "fp32"
            return [
                self._sample(Sample(round_, name, key, precision), bounds[precision][s.photos], s, server)
                for key, s in scenarios.items()
            ]

    def _sample(self, sample: Sample, bound: Bound, scenario: Scenario, server: Running) -> Sample:
        photos = self.photos[scenario.photos]
        labels = self.labels(sample.server, scenario.network, scenario.photos, sample.precision)
        requests = [SERVERS[sample.server].request(photo) for photo in photos]
        cpu: list[float] = []
        attainable = bound.crowd if scenario.clients > 1 else bound.alone
        warm_up = max(WARM_UP_S, WARM_UP_TURNS * scenario.clients / attainable)
        plan = Plan(server.port, requests, labels, self.seconds, warm_up, clients=scenario.clients)
        result = drive(plan, lambda: cpu.append(server.cpu()), lambda: cpu.append(server.cpu()))
        sample.rate = result.rate
        sample.bound = attainable
        sample.bound_latency = 1 / bound.alone
        sample.latencies = [round(seconds, 5) for _, seconds in result.answers]
        sample.errors = dict(result.errors)
        sample.cpu = (cpu[1] - cpu[0]) / max(result.work, 1)
        sample.client_cpu = result.client_cpu / result.seconds
        sample.start, sample.memory = server.start_seconds, server.memory()
        return sample

    @functools.cache  # noqa: B019  one Bench lives as long as the process
    def raw(self, network: str, precision: Precision, ours: bool) -> Raw:
        """Returns the model without a server, from the file that ours runs here, or that the peers run."""
        repository = ModelRepository(MODELS / network, MODEL)
        manifest = repository.manifest(1)
        variant = manifest.variants[precision]
        file = variant.file_on(PROVIDER) if ours else variant.file
        return Raw(repository.path(1) / file, precision, manifest.preprocessing)

    @functools.cache  # noqa: B019
    def labels(self, name: str, network: str, photos: str, precision: Precision) -> list[bytes]:
        """Returns the right top classes, by the raw model, for images as this server decodes them."""
        server = SERVERS[name]
        if server.answers_all:
            return [server.answers_all] * len(self.photos[photos])
        raw = self.raw(network, precision, server.ours)
        size = raw.preprocessing
        images = [
            decode(photo, size) if server.ours else plain_decode(photo, (size.width, size.height))
            for photo in self.photos[photos]
        ]
        return [b"class %04d" % top for top in raw.top_classes(images)]

    def swap(self, name: str) -> SwapSample:
        """Makes another version live in the middle of an open loop at half of the bound."""
        photos = self.photos["small"]
        repository = ModelRepository(MODELS / "real", MODEL)
        span: list[float] = []

        def activate() -> None:
            time.sleep(self.seconds)  # a steady load before it
            span.append(time.monotonic())
            repository.activate(2)
            while server.model()["version"] != 2:
                time.sleep(0.05)
            span.append(time.monotonic())

        bounds = {p: self.raw("real", p, True).measure({"small": photos}, BOUND_S) for p in SERVERS[name].precisions}
        try:
            with running(name, MODELS / "real", photos[0]) as server:
                precision: Precision = server.model()["precision"]
                rate = SWAP_LOAD * bounds[precision]["small"].crowd
                labels = self.labels(name, "real", "small", precision)  # of both versions: see models.tell_apart
                requests = [SERVERS[name].request(photo) for photo in photos]
                seconds = 2 * self.seconds + SWAP_S
                result = drive(Plan(server.port, requests, labels, seconds, WARM_UP_S, rate=rate), activate)
        finally:
            repository.activate(1)
        begun, ended = span
        during = [s for due, s in result.answers if begun <= due < ended]
        steady = [s for due, s in result.answers if due < begun or due >= ended + SETTLE_S]
        return SwapSample(name, precision, rate, ended - begun, steady, during, dict(result.errors))


def import_seconds() -> float:
    """Returns the seconds of `import app.main`, without Python's own start."""

    def seconds(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        return time.perf_counter() - begun

    return statistics.median(seconds("import app.main") - seconds("pass") for _ in range(5))


def measure(options: argparse.Namespace) -> Findings:
    """Measures all rounds. A server that is not installed or does not answer is left out, and the reason is kept."""
    bench = Bench(options.seconds)
    findings = Findings(machine(LIBRARIES), options.rounds, options.seconds, import_seconds())
    chosen = {key: SCENARIOS[key] for key in options.scenarios if key != SWAP}
    visits = [
        (name, visit)
        for name in options.servers
        for network, crowd in (("real", False), ("real", True), ("tiny", True))
        if (
            visit := {
                key: s
                for key, s in chosen.items()
                if (s.network, s.clients > 1) == (network, crowd) and network in SERVERS[name].networks
            }
        )
    ]
    for round_ in range(options.rounds):
        for name, scenarios in visits if round_ % 2 == 0 else reversed(visits):
            if name in findings.failures:
                continue
            say(f"round {round_ + 1} of {options.rounds}: {name}, {', '.join(scenarios)}")
            try:
                if not installed(name):
                    target = "bench-openvino" if SERVERS[name].ours else "bench-peers"
                    raise RuntimeError(f"it is not installed: make {target}")
                findings.samples += bench.visit(round_, name, scenarios)
            except RuntimeError as error:
                findings.failures[name] = str(error)
                say(f"{name} is left out: {error}")
            findings.save(FOUND)
        if SWAP in options.scenarios:
            findings.swaps += [
                bench.swap(n)
                for n, server in SERVERS.items()
                if n in options.servers and server.ours and server.bounded and "real" in server.networks
            ]
        findings.save(FOUND)
    return findings


def say(text: str) -> None:
    """Writes a line to stderr: stdout is for the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def main() -> None:
    """Measures, writes the section, prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS), metavar="NAME")
    parser.add_argument("--scenarios", nargs="+", choices=[*SCENARIOS, SWAP], default=[*SCENARIOS, SWAP])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="seconds of each measurement, without its warm-up")
    parser.add_argument("--report", action="store_true", help="write the section again from .bench/serving.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    findings = Findings.read(FOUND) if options.report else measure(options)
    sys.stdout.write(write(findings, options.output))


if __name__ == "__main__":
    main()
