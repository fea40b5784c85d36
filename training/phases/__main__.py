"""`python -m training.phases RUN PHASE... --models DIR`: runs phases of a run in a process of their own.

A worker runs its phases this way: a cancel or a crash ends only that process, and its memory is freed.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from training.contract.repository import ModelRepository
from training.errors import TrainingError
from training.phases.order import run_phase
from training.runs.progress import PHASES
from training.runs.run import Run
from training.system import lifeline


def main(arguments: list[str]) -> int:
    """Returns 0 when the phases are done, 1 when one failed, with the reason as the last line of stderr."""
    parser = argparse.ArgumentParser(prog="python -m training.phases", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("phases", nargs="+", choices=PHASES, metavar="PHASE")
    parser.add_argument("--models", type=Path, required=True, help="folder of the model repository")
    parsed = parser.parse_args(arguments)
    run = Run(parsed.run)
    try:
        for phase in parsed.phases:
            run_phase(run, phase, ModelRepository(parsed.models, run.config().name), Console(width=120))
    except (TrainingError, OSError) as error:  # OSError: a full disk, a folder that went away
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    lifeline.follow()
    sys.exit(main(sys.argv[1:]))
