"""Runs the phases in order. Each phase starts from the records and files that earlier phases left in the run's folder.

One arrow points backward: publishing gates again, and writes gating's record, when another version has become active
since the candidate was judged (`training.phases.publish`). Only training and exporting import TensorFlow.
"""

import shutil
from typing import assert_never

from pydantic import BaseModel
from rich.console import Console

from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.datasets import kept_pixels
from training.environment import Places
from training.runs.console import ProgressLog
from training.runs.progress import PHASES, Phase
from training.runs.records import PublishRecord
from training.runs.run import Run
from training.runs.source import pinned_source
from training.weights.store import WeightsStore


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
        if phase == PHASES[-1]:
            kept_pixels.remove(run.folder)


def _train(run: Run, repository: ModelRepository, log: ProgressLog) -> BaseModel:
    """Trains by the run's method. A fine-tuning publishes its head first, in a run of its own."""
    from training.phases.method import plan_of

    source = pinned_source(run, run.config(), repository, WeightsStore(Places().weights))
    plan = plan_of(run, source, log)
    if plan.method == "head":
        from training.phases.head import train_head

        assert source  # the plan requires it
        return train_head(run, source, repository, log)
    if plan.method == "finetune":
        _publish_head(run, repository, log)
    from training.phases.train import train

    return train(run, plan, source, repository, log)


def _publish_head(run: Run, repository: ModelRepository, log: ProgressLog) -> None:
    """Trains, judges and publishes a head on the weights that the run starts from, on the same images."""
    log.announce("training", "the last layer first: it is published while all layers are trained")
    head = run.of_head()
    if not head.config_file.exists():
        head.folder.mkdir(exist_ok=True)
        for file in (run.samples, run.init, run.folder / "checking.json"):
            shutil.copy(file, head.folder)
        kept_pixels.copy(run.folder, head.folder)
        head.claim(run.config().model_copy(update={"method": "head"}))
    run_phases(head, repository, log.console)
    verdict, published = head.record("gating", Verdict), head.record("publishing", PublishRecord)
    kept = "active" if published.active else "kept aside"
    version = f"version {published.version} is {kept}" if published.version else "nothing is published"
    log.announce("training", f"all layers now; of the last layer alone {version}, test accuracy {verdict.accuracy:.4f}")


def _record_of(phase: Phase, run: Run, repository: ModelRepository, log: ProgressLog) -> BaseModel:
    """Runs a phase and returns its record. Imports only what the phase needs, since TensorFlow takes seconds."""
    match phase:
        case "checking":
            from training.phases.check import check

            return check(run, log)
        case "training":
            return _train(run, repository, log)
        case "exporting":
            from training.phases.export import export

            return export(run, repository, log)
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
