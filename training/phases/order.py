"""Runs the phases in order. Each phase starts from the records and files that earlier phases left in the run's folder.

One arrow points backward: publishing gates again, and writes gating's record, when another version has become active
since the candidate was judged (`training.phases.publish`). Only training and exporting import TensorFlow.
"""

from typing import assert_never

from pydantic import BaseModel
from rich.console import Console

from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.runs.console import ProgressLog
from training.runs.progress import PHASES, Phase
from training.runs.run import Run


def run_phases(run: Run, repository: ModelRepository, console: Console, skip: tuple[Phase, ...] = ()) -> None:
    """Runs all phases but those in `skip`, in this process. Raises TrainingError."""
    for phase in PHASES:
        if phase not in skip:
            run_phase(run, phase, repository, console)


def run_phase(run: Run, phase: Phase, repository: ModelRepository, console: Console) -> None:
    """Runs a phase unless it is done. Raises TrainingError; the next call then goes on from what the phase left."""
    with run.locked():
        if run.done(phase):
            return
        log = ProgressLog(run.progress, console)
        run.finish(phase, _record_of(phase, run, repository, log))
        log.done(phase)


def _record_of(phase: Phase, run: Run, repository: ModelRepository, log: ProgressLog) -> BaseModel:
    """Runs a phase and returns its record. Imports only what the phase needs, since TensorFlow takes seconds."""
    match phase:
        case "checking":
            from training.phases.check import check

            return check(run, log)
        case "training":
            from training.phases.train import train

            return train(run, repository, log)
        case "exporting":
            from training.phases.export import export

            return export(run, log)
        case "verifying":
            from training.phases.verify import verify

            return verify(run, log)
        case "gating":
            from training.phases.gate import gate

            return gate(run, repository, log)
        case "quantizing":
            from training.phases.quantize import quantize

            return quantize(run, run.record("gating", Verdict), log)
        case "publishing":
            from training.phases.publish import publish

            return publish(run, repository, log)
        case _:
            assert_never(phase)
