"""The phases of a run, in order, each from what the ones before it left in the run's folder.

`python -m training.phases.order RUN PHASE --models DIR` is how a worker runs one: a process of its own, so that a
cancel or a crash is a process' end and the memory comes back. Only training and exporting import TensorFlow.
"""

import argparse
import sys
from pathlib import Path
from typing import assert_never

from pydantic import BaseModel
from rich.console import Console

from training.contract.manifest import ModelRepository
from training.contract.verdict import Verdict
from training.datasets.dataset import scan, survey, write_samples
from training.datasets.report import DatasetReport
from training.errors import TrainingError
from training.runs.progress import ProgressLog
from training.runs.run import PHASES, Phase, Run
from training.system import lifeline


def run_phases(run: Run, repository: ModelRepository, console: Console, skip: tuple[Phase, ...] = ()) -> None:
    """All of them but `skip`, in this process. Raises TrainingError."""
    for phase in PHASES:
        if phase not in skip:
            run_phase(run, phase, repository, console)


def run_phase(run: Run, phase: Phase, repository: ModelRepository, console: Console) -> None:
    """Runs a phase unless it is done. Raises TrainingError; what it has left by then is where it goes on."""
    with run.locked():
        if run.done(phase):
            return
        log = ProgressLog(run.progress, console)
        run.finish(phase, _record_of(phase, run, repository, log))
        log.write("done", phase=phase)


def _record_of(phase: Phase, run: Run, repository: ModelRepository, log: ProgressLog) -> BaseModel:
    """Imports what the phase needs and no more: TensorFlow takes seconds."""
    match phase:
        case "checking":
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
            from training.phases.quantize import make_variants

            return make_variants(run, run.record("gating", Verdict), log)
        case "publishing":
            from training.phases.publish import publish

            return publish(run, repository, log)
        case _:
            assert_never(phase)


def check(run: Run, log: ProgressLog) -> DatasetReport:
    """The checking phase: reads every file once; what is trained on later is what was checked. Raises DatasetError."""
    from training.datasets.baseline import baseline  # scikit-learn takes a second to import

    config = run.config()
    log.phase("checking", f"the images in {config.data}")
    dataset = scan(config.data, config.val_fraction, config.test_fraction, config.seed)
    report, samples = survey(dataset, config.preprocessing, strict=config.strict, progress=log.files)
    report = report.model_copy(update={"baseline": baseline(samples, run.folder / "cache")})
    log.tell(report.render())
    write_samples(run.samples, samples)
    return report


def main(arguments: list[str]) -> int:
    """0 when the phase is done; 1 when it failed, with the reason as the last line of stderr."""
    parser = argparse.ArgumentParser(prog="python -m training.phases.order", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--models", type=Path, required=True, help="folder of the model repository")
    parsed = parser.parse_args(arguments)
    run = Run(parsed.run)
    try:
        run_phase(run, parsed.phase, ModelRepository(parsed.models, run.config().name), Console(width=120))
    except (TrainingError, OSError) as error:  # OSError: a full disk, a folder that went away
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    lifeline.follow()
    sys.exit(main(sys.argv[1:]))
