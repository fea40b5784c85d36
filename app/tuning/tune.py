"""`python -m app tune`: tries the settings that decide the speed on this machine, and says which to set."""

import argparse
import json
import re
import sys
from typing import Any

from app.execution.cores import usable_cores
from app.execution.provider import PROVIDERS
from app.settings import read_settings
from app.tuning.recommendation import WORTHWHILE, Candidate, Comparison, Figures, percentile
from app.tuning.sweep import Outcome, Proposal, Stage, Sweep
from training.environment import ENV_PREFIX

SHARES = (0.5, 0.99)  # the percentiles of latency that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--seconds", type=_positive, default=90, help="seconds of measuring, about (default: 90)")
    parser.add_argument(
        "--clients", type=_positive, default=16, help="clients that ask at once (default: 16; more for a GPU)"
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        default=(4032, 3024),
        help="size of the JPEGs that the clients send (default: 4032x3024)",
    )
    parser.add_argument("--json", action="store_true", help="print everything that was measured as JSON")


def tune(options: argparse.Namespace) -> None:
    """Runs the command.

    Raises SettingsError, ProviderError, NothingToTune, ContractError, ModelError, InferenceFailed, ImageError.
    """
    sweep = Sweep(read_settings(), options.seconds, options.clients, options.image_size, usable_cores(), _tell)
    outcome = sweep.run()
    text = json.dumps(as_json(sweep, outcome), indent=1) if options.json else as_text(sweep, outcome)
    sys.stdout.write(f"{text}\n")


def as_text(sweep: Sweep, outcome: Outcome) -> str:
    """Returns tables, and lines to paste with their reasons as comments."""
    width, height = sweep.image_size
    lines = [
        f"{sweep.repository.name} version {sweep.version}, {PROVIDERS[sweep.provider].name}, "
        f"cores: {sweep.cores}, JPEGs of {width} x {height}, without HTTP",
    ]
    for stage in outcome.stages:
        lines += ["", *_table(stage, sweep.clients)]
    return "\n".join([*lines, "", *verdict(outcome, sweep.clients, sweep.pinned)])


def as_json(sweep: Sweep, outcome: Outcome) -> dict[str, Any]:  # Any: JSON
    """Returns everything that was measured, and what to set."""
    return {
        "model": sweep.repository.name,
        "version": sweep.version,
        "provider": PROVIDERS[sweep.provider].name,
        "cores": sweep.cores,
        "clients": sweep.clients,
        "image_size": sweep.image_size,
        "stages": [
            {"name": stage.name, "candidates": [_entry(*item) for item in stage.measured.items()]}
            for stage in outcome.stages
        ],
        "settings": outcome.best.settings if outcome.best else {},
        "verdict": verdict(outcome, sweep.clients, sweep.pinned),
    }


def verdict(outcome: Outcome, clients: int, pinned: list[str]) -> list[str]:
    """Returns lines for an environment file: what to set, and why, as comments. `pinned` settings were not tried."""
    lines = []
    if outcome.best:
        lines += [f"{name}={value}" for name, value in outcome.best.settings.items()]
        lines.append(f"# {_versus(outcome.best.comparison, clients)}")
    elif pinned:
        names = ", ".join(ENV_PREFIX + name.upper() for name in pinned)
        lines.append(f"# {names} as set, and the defaults of the rest, are {_within()}: set nothing more")
    else:
        lines.append(f"# the defaults are {_within()}: set nothing")
    if outcome.for_load_alone:
        lines += _remark(outcome.for_load_alone, clients)
    return lines


def _within() -> str:
    return f"within {100 * (WORTHWHILE - 1):.0f} % of the best"


def _remark(proposal: Proposal, clients: int) -> list[str]:
    settings = " ".join(f"{name}={value}" for name, value in proposal.settings.items())
    return [f"# only where there are always many clients, {settings}:", f"# {_versus(proposal.comparison, clients)}"]


def _versus(comparison: Comparison, clients: int) -> str:
    return (
        f"{comparison.rate:.2f} times the images/s with {clients} clients of what is set now "
        f"({comparison.worst_rate:.2f} to {comparison.best_rate:.2f} in each round), "
        f"a lone client waits {comparison.alone:.2f} times as long"
    )


def _table(stage: Stage, clients: int) -> list[str]:
    rows = [(_name(candidate), _figures(figures)) for candidate, figures in stage.measured.items()]
    width = max(len(stage.name), *(len(name) for name, _ in rows))
    return [
        f"{'':{width}}   {f'{clients} clients':^26}    {'1 client':^15}".rstrip(),
        f"{stage.name:{width}}   images/s   p50 ms   p99 ms     p50 ms   p99 ms",
        *(f"{name:{width}} {figures}" for name, figures in rows),
    ]


def _name(candidate: Candidate) -> str:
    batch = f"{candidate.batch}{'' if candidate.max_batch else ' (auto)'}"
    threads = f"threads {candidate.threads}, decode threads {candidate.decode_threads}"
    return f"{candidate.precision}, {threads}, max batch {batch}"


def _figures(figures: Figures) -> str:
    crowd = "".join(f"{1e3 * percentile(figures.crowd, share):9.1f}" for share in SHARES)
    alone = "".join(f"{1e3 * percentile(figures.alone, share):9.1f}" for share in SHARES)
    return f"{figures.rate:10.1f}{crowd}  {alone}"


def _entry(candidate: Candidate, figures: Figures) -> dict[str, Any]:  # Any: JSON
    return {
        "precision": candidate.precision,
        "threads": candidate.threads,
        "max_batch": candidate.batch,
        "decode_threads": candidate.decode_threads,
        "images_per_second": round(figures.rate, 2),
        "images_per_second_of_rounds": [round(rate, 2) for rate in figures.rates],
        "latency_ms": _milliseconds(figures.crowd),
        "lone_latency_ms": _milliseconds(figures.alone),
    }


def _milliseconds(latencies: list[float]) -> dict[str, float]:
    return {f"p{100 * share:.0f}": round(1e3 * percentile(latencies, share), 2) for share in SHARES}


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 on, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"should be WIDTHxHEIGHT, as 4032x3024, got {text!r}")
    return int(found[1]), int(found[2])


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
