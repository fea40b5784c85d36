"""Attacks the service on this machine, and writes what came of it into docs/reliability.md.

`make chaos` runs all parts, in under 15 minutes on two cores; `make chaos PARTS="images clients"` runs some and only
prints. Real processes, loopback only; what a part has started it ends. Exits with 1 when anything went wrong.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.machine import machine
from tests.chaos import archives, clients, disks, hangs, images, kills, overload, swaps
from tests.chaos.harness import Outcome
from tests.process import ROOT

PARTS: dict[str, Callable[[Path], Iterator[Outcome]]] = {
    "images": images.run,
    "archives": archives.run,
    "clients": clients.run,
    "overload": overload.run,
    "swaps": swaps.run,
    "kills": kills.run,
    "hangs": hangs.run,
    "disks": disks.run,
}
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- make chaos: begin -->", "<!-- make chaos: end -->"
HEAD = """\
| what was tried | how often | went wrong | memory before / at its peak / after, MB | seconds | seen |
|---|---|---|---|---|---|"""


def main(names: list[str]) -> int:
    """Runs the named parts, or all of them and writes the table. Returns 1 when anything went wrong."""
    if unknown := set(names) - set(PARTS):
        sys.stderr.write(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}\n")
        return 2
    begun, outcomes = time.monotonic(), list[Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        for name in names or PARTS:
            for outcome in PARTS[name](Path(folder)):
                sys.stdout.write(f"{outcome.row()}\n")
                sys.stdout.writelines(f"  {problem}\n" for problem in outcome.problems[:20])
                sys.stdout.flush()
                outcomes.append(outcome)
    table = "\n".join([HEAD, *(outcome.row() for outcome in outcomes)])
    if not names:
        minutes = (time.monotonic() - begun) / 60
        write(PAGE, f"{table}\n\n`make chaos`, {minutes:.0f} minutes. {machine()}")
    wrong = sum(len(outcome.problems) for outcome in outcomes)
    sys.stdout.write(f"{len(outcomes)} rows, {wrong} problems\n")
    return int(wrong > 0)


def write(page: Path, text: str) -> None:
    """Replaces what stands between the page's two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
