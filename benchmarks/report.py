"""The findings of `make bench`, and the Markdown made of them."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.load import percentile
from benchmarks.servers import CORES, ROOT, SERVERS
from training.contract.manifest import Precision

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
LIBRARIES = ("onnxruntime-gpu", "numpy", "pillow", "fastapi", "uvicorn")
SWAP = "swap"  # the scenario that only ours can run
NONE = "–"


@dataclass(frozen=True)
class Scenario:
    """A load: which network, which photographs, how many clients."""

    title: str
    clients: int
    network: str = "real"
    photos: str = "small"


SCENARIOS = {
    "one": Scenario("1 client", 1),
    "eight": Scenario("8 clients", 8),
    "many": Scenario("32 clients", 32),
    "phone": Scenario("12 megapixels, 8 clients", 8, photos="phone"),
    "tiny": Scenario("tiny network and images, 32 clients", 32, network="tiny", photos="thumbnail"),
}


@dataclass
class Sample:
    """One server in one round of one scenario. `rate` and `bound` in images a second, all else in seconds and bytes."""

    round: int
    server: str
    scenario: str
    precision: Precision
    rate: float = 0.0
    bound: float = 0.0
    bound_latency: float = 0.0  # of a lone image
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0  # an image
    client_cpu: float = 0.0  # a second
    start: float = 0.0
    memory: float = 0.0


@dataclass
class SwapSample:
    """A swap under an open loop: latencies of the requests that were due while it lasted, and of the others."""

    server: str
    precision: Precision
    rate: float
    seconds: float
    steady: list[float]
    during: list[float]
    errors: dict[str, int]


@dataclass
class Findings:
    """All that one run of the benchmark measured."""

    machine: str
    rounds: int
    seconds: float
    import_seconds: float
    samples: list[Sample] = field(default_factory=list)
    swaps: list[SwapSample] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the findings as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Findings":
        """Reads what `save` wrote."""
        found = cls(**json.loads(path.read_text()))
        found.samples = [Sample(**sample) for sample in found.samples]  # type: ignore[arg-type]  # dicts, from JSON
        found.swaps = [SwapSample(**swap) for swap in found.swaps]  # type: ignore[arg-type]
        return found

    def of(self, server: str, scenario: str) -> list[Sample]:
        """Returns a server's samples, one a round."""
        return [s for s in self.samples if (s.server, s.scenario) == (server, scenario)]

    def servers(self) -> list[str]:
        """Those that were measured, in the table's order."""
        return [name for name in SERVERS if any(s.server == name for s in self.samples)]

    def scenarios(self) -> list[str]:
        """Those that were measured, in the table's order."""
        return [key for key in SCENARIOS if any(s.scenario == key for s in self.samples)]


def write(findings: Findings, page: Path) -> str:
    """Puts the section between its markers, or at the end of a page without them; returns the section."""
    section = f"{BEGIN}\n{render(findings)}\n{END}"
    text = page.read_text() if page.exists() else ""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Serving\n\n{BEGIN}\n{END}\n".lstrip()
    head, rest = text.split(BEGIN, 1)
    page.write_text(head + section + rest.split(END, 1)[1])
    return section + "\n"


def render(findings: Findings) -> str:
    """Returns the section: method, tables, what went wrong, machine."""
    loads = findings.scenarios()
    crowd = [key for key in loads if SCENARIOS[key].clients > 1]
    parts = [_method(findings)]
    if loads:
        parts += [
            "Images a second, minimum / median / maximum of the rounds; in brackets the median of the shares of the "
            "bound that was measured in the same minute, with the file that is served:",
            _table(findings, loads, _rate, rows=_bounds(findings, loads)),
            'Milliseconds, p50 / p95 / p99 of all rounds together. "Around the model": the median with one client '
            "less decode and inference alone:",
            _table(findings, loads, _latency, {"around the model": _overhead}),
            "CPU milliseconds an image, of all processes of a server:",
            _table(findings, crowd, _cpu, {"start to first answer": _start, "memory": _memory}),
        ]
    if findings.swaps:
        parts += [_swap_method(findings.swaps), _swaps(findings.swaps)]
    return "\n\n".join([*parts, _notes(findings), findings.machine + "; " + _peers()])


def _method(findings: Findings) -> str:
    return (
        "`make bench`: ResNeXt-50 at 224 x 224 with 1000 classes, JPEGs of 500 x 375 or of 12 megapixels in, the five "
        f"best classes out, on {CORES} cores that the client shares; {findings.rounds} rounds of "
        f"{findings.seconds:g} s after a warm-up, interleaved, each from a fresh start. Every answer's top "
        "class is compared with that of the model alone. The bound is decode and `session.run` with nothing around "
        "them, in one run over all cores or one a core, of one image or two, whichever is fastest. The service runs "
        "with its defaults; a "
        "peer with the better setting for the load: one process with all threads for one client, one thread in each of "
        "as many processes as cores (BentoML: threads) for more. Peers serve fp32 from `model.onnx`, the service on "
        "a CPU from `model.cpu.onnx`, the same rewritten for it; there peers do no batching, which would gain nothing. "
        "OpenVINO is the service in its other environment; its bound is not measured."
    )


def _table(
    findings: Findings,
    scenarios: list[str],
    cell: Callable[[list[Sample]], str],
    more: dict[str, Callable[[Findings, str], str]] | None = None,
    rows: Iterable[list[str]] = (),
) -> str:
    """Returns a table: a row for each server, and `rows`; a column for each load, and `more`."""
    more = more or {}
    head = ["", *(SCENARIOS[key].title for key in scenarios), *more]
    measured = [
        [
            _name(findings, server),
            *(cell(found) if (found := findings.of(server, key)) else NONE for key in scenarios),
            *(extra(findings, server) for extra in more.values()),
        ]
        for server in findings.servers()
    ]
    return markdown(head, [*measured, *rows])


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _name(findings: Findings, server: str) -> str:
    precisions = {s.precision.upper() for s in findings.samples if s.server == server and s.scenario != "tiny"}
    shipped = len(SERVERS[server].precisions) > 1
    return SERVERS[server].name + (f" ({', '.join(sorted(precisions))})" if shipped and precisions else "")


def _rate(found: list[Sample]) -> str:
    server = SERVERS[found[0].server]
    rates = _spread([s.rate for s in found])
    if not server.bounded or server.answers_all:
        return rates
    return f"{rates} ({statistics.median(s.rate / s.bound for s in found):.0%})"


def _spread(rates: list[float]) -> str:
    digits = 1 if max(rates) < 100 else 0
    return " / ".join(f"{f(rates):.{digits}f}" for f in (min, statistics.median, max))


def _bounds(findings: Findings, scenarios: list[str]) -> list[list[str]]:
    """Returns a row for each precision that was served, and one for what the peers do."""
    rows = []
    samples = [s for s in findings.samples if SERVERS[s.server].bounded]
    for precision, ours in sorted({(s.precision, SERVERS[s.server].ours) for s in samples}):
        found = [s for s in samples if (s.precision, SERVERS[s.server].ours) == (precision, ours)]
        cells = []
        for key in scenarios:
            bounds = [s.bound for s in found if s.scenario == key]
            cells.append(_spread(bounds) if bounds else NONE)
        rows.append([f"bound, {precision.upper()}" + ("" if ours else ", peers"), *cells])
    return rows


def _latency(found: list[Sample]) -> str:
    seconds = [second for s in found for second in s.latencies]
    return _milliseconds(seconds, 50, 95, 99)


def _milliseconds(seconds: list[float], *percents: int) -> str:
    values = [percentile(seconds, percent) for percent in percents]
    return " / ".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)


def _overhead(findings: Findings, server: str) -> str:
    found = findings.of(server, "one")
    if not found or not SERVERS[server].bounded:
        return NONE
    return f"{statistics.median(percentile(s.latencies, 50) - 1e3 * s.bound_latency for s in found):.1f}"


def _cpu(found: list[Sample]) -> str:
    return f"{1e3 * statistics.median(s.cpu for s in found):.3g}"


def _start(findings: Findings, server: str) -> str:
    seconds = [s.start for s in findings.samples if s.server == server and s.scenario != "tiny"]
    return f"{statistics.median(seconds):.1f} s" if seconds else NONE


def _memory(findings: Findings, server: str) -> str:
    found = findings.of(server, "many") or findings.of(server, "eight")
    return f"{statistics.median(s.memory for s in found) / 1e6:.0f} MB" if found else NONE


def _swap_method(swaps: list[SwapSample]) -> str:
    return (
        f"A swap to another version, under requests that come at random (Poisson) at half of the bound. "
        f"Milliseconds from when a request was due, p50 / p99 / maximum, {len(swaps)} swaps:"
    )


def _swaps(swaps: list[SwapSample]) -> str:
    rows = []
    for server in dict.fromkeys(s.server for s in swaps):
        mine = [s for s in swaps if s.server == server]
        cells = [SERVERS[server].name, f"{statistics.median(s.rate for s in mine):.1f} images/s"]
        for latencies in ([x for s in mine for x in s.steady], [x for s in mine for x in s.during]):
            cells.append(_milliseconds(latencies, 50, 99, 100))
        rows.append([*cells, f"{statistics.median(s.seconds for s in mine):.1f} s"])
    return markdown(["", "load", "steady", "while it swaps", "a swap takes"], rows)


def _notes(findings: Findings) -> str:
    answers = sum(len(s.latencies) for s in findings.samples)
    errors: Counter[str] = Counter()
    met = [(s.server, SCENARIOS[s.scenario].title, s.errors) for s in findings.samples]
    for server, where, kinds in [*met, *((s.server, SWAP, s.errors) for s in findings.swaps)]:
        errors.update({f"{server}, {where}: {kind}": count for kind, count in kinds.items()})
    client = max((s.client_cpu for s in findings.samples if s.server != "static"), default=0)
    lines = [
        f"- {answers} right answers; " + (", ".join(f"{k} {n}" for k, n in errors.items()) or "no errors") + ".",
        f"- `import app.main` takes {findings.import_seconds:.2f} s.",
        f"- The client took {client:.0%} of one core at most; what it can do is the row of `nothing`.",
        *(f"- {SERVERS[name].name} is left out: {why.splitlines()[-1]}" for name, why in findings.failures.items()),
    ]
    return "\n".join(lines)


def _peers() -> str:
    versions = []
    for path in sorted((ROOT / "benchmarks/peers").glob("*/requirements.txt")):
        name = path.parent.name
        versions += [line.replace("==", " ") for line in path.read_text().splitlines() if line.startswith(f"{name}==")]
    return f"peers: {', '.join(versions)}"
