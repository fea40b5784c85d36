"""Compares a training step with PyTorch's: the same network, batch, precision and cores.

Each contestant is a process that stays; rounds are interleaved, after a warm-up round. A second row of ours trains
through the input pipeline, and shows what it costs a step. PyTorch's documentation advises tcmalloc: if that is
installed, it gets a row. All contestants must have the same number of parameters and a loss that falls.
"""

import argparse
import ctypes.util
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]
PYTORCH = ROOT / ".bench/envs/pytorch/bin/python"
CLASSES = 1000
ROUND_S = 3.0  # a round takes as many steps as fit, at least three
CASES = ("64x64x64:float32", "64x64x64:bfloat16", "8x224x224:float32", "8x224x224:bfloat16")
OURS, AUGMENTED = "ours", "ours, through the input pipeline"
PEER, PRELOADED, COMPILED = "PyTorch", "PyTorch, tcmalloc", "PyTorch, torch.compile"


@dataclass(frozen=True)
class Case:
    """A batch of square images and a precision."""

    batch: int
    size: int
    precision: str

    @classmethod
    def read(cls, text: str) -> "Case":
        """Reads `64x224x224:float32`: images, height, width, precision."""
        shape, precision = text.split(":")
        batch, height, width = map(int, shape.split("x"))
        if height != width:
            raise ValueError(f"images should be square, {text} has {height} x {width}")
        return cls(batch, height, precision)

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, batch {self.batch}, {self.precision}"


@dataclass
class Contestant:
    """A trainer's process. Rates in images a second, `first_step` in seconds."""

    name: str
    command: list[str]
    case: Case
    rates: list[float] = field(default_factory=list)
    first_step: float = 0.0

    def start(self) -> None:
        """Starts the process and waits for its first step, which traces."""
        start = time.perf_counter()
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )
        about = self._answer()
        self.version, self.parameters = about["version"], about["parameters"]
        self.first_loss = self._steps(1)[1]
        self.first_step = time.perf_counter() - start

    def end(self) -> None:
        """Ends the process by closing its stdin."""
        self.process.communicate()

    def warm_up(self) -> None:
        """Takes a few steps to find out how many make a round."""
        self._steps(2)
        seconds, _ = self._steps(3)
        self.steps = max(3, round(ROUND_S / (seconds / 3)))

    def race(self) -> None:
        """Takes one round."""
        seconds, loss = self._steps(self.steps)
        assert math.isfinite(loss), f"{self.name} has a loss of {loss}"
        self.rates.append(self.case.batch * self.steps / seconds)
        self.last_loss = loss

    def _steps(self, count: int) -> tuple[float, float]:
        """Returns the seconds of `count` steps, and the loss after them."""
        assert self.process.stdin
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["loss"]

    def _answer(self) -> dict[str, Any]:
        """Returns a line of its JSON. Raises RuntimeError if the process has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def contestants(case: Case, options: argparse.Namespace) -> list[Contestant]:
    """Returns the contestants of one case, ours first."""
    shared = [f"--size={case.size}", f"--batch={case.batch}", f"--precision={case.precision}"]
    shared += [f"--classes={CLASSES}", f"--optimizer={options.optimizer}"]
    ours = [sys.executable, "-m", "benchmarks.trainer", *shared]
    peer = [str(options.pytorch), "benchmarks/peers/pytorch/trainer.py", *shared]
    commands = {OURS: ours, AUGMENTED: [*ours, "--pipeline"], PEER: peer}
    if options.tcmalloc:
        commands[PRELOADED] = ["env", f"LD_PRELOAD={options.tcmalloc}", *peer]
    if options.compile:
        commands[COMPILED] = [*peer, "--compile"]
    return [Contestant(name, command, case) for name, command in commands.items()]


def measure(case: Case, options: argparse.Namespace) -> list[Contestant]:
    """Measures all rounds of a case. One process at a time computes; the others wait for a line."""
    started: list[Contestant] = []
    try:
        for contestant in contestants(case, options):
            started.append(contestant)
            contestant.start()
            contestant.warm_up()
        assert len({contestant.parameters for contestant in started}) == 1, [c.parameters for c in started]
        for _ in range(options.rounds):
            for contestant in started:
                contestant.race()
    finally:
        for contestant in started:
            contestant.end()
    for contestant in started:
        if contestant.name != AUGMENTED:  # it does not see the same images again and again
            assert contestant.last_loss < contestant.first_loss, f"{contestant.name} does not learn"
    return started


def table(cases: dict[Case, list[Contestant]]) -> str:
    """Returns a table: minimum, median and maximum in images a second; how ours compares; seconds to the first step."""
    lines = ["| | | images/s: min / median / max | ours is | first step after |", "|---|---|---|---|---|"]
    for case, found in cases.items():
        ours = statistics.median(found[0].rates)
        for i, contestant in enumerate(found):
            low, median, high = (f(contestant.rates) for f in (min, statistics.median, max))
            digits = 1 if high < 100 else 0
            rates = f"{low:.{digits}f} / {median:.{digits}f} / {high:.{digits}f}"
            cells = ["" if i else str(case), contestant.name, rates, f"{ours / median:.2f}x"]
            lines.append(f"| {' | '.join(cells)} | {contestant.first_step:.1f} s |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, help="images x height x width : precision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--pytorch", type=Path, default=PYTORCH, help="its Python")
    parser.add_argument("--tcmalloc", default=ctypes.util.find_library("tcmalloc_minimal"), help="library to preload")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, which takes minutes")
    options = parser.parse_args()
    if not options.pytorch.exists():
        sys.exit(f"PyTorch's environment is missing: make {PYTORCH.parents[1].relative_to(ROOT)}/installed")
    found = {case: measure(case, options) for case in map(Case.read, options.cases)}
    version = next(c.version for c in found[next(iter(found))] if c.name == PEER)
    sys.stdout.write(f"{machine(('tensorflow', 'keras', 'numpy'))}; {version}\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
