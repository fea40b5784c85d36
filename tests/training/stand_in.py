"""A real worker whose phases are small programs without TensorFlow, each of which a test can hold at a point.

A file `STATE/points/<phase>-<start|middle|end>` holds the phase there: it answers with a file whose suffix is its
process id, and goes on once the first file is gone. `<phase>-fail` makes the phase fail.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from training.contract.verdict import Verdict
from training.runs.progress import Phase
from training.runs.records import PublishRecord, QuantizationRecord
from training.runs.run import Run
from training.system import lifeline

STEPS = 3


class Note(BaseModel):
    """A phase's record whose content does not matter."""

    steps: int = STEPS


def verdict(run: Run) -> Verdict:
    gate = run.config().gate
    passed = gate.policy != "never"
    return Verdict(
        passed=passed,
        reasons=[] if passed else ["gate.policy is never"],
        notes=[],
        policy=gate.policy,
        dry_run=gate.dry_run,
        accuracy=0.9,
        minimum=0.5,
        live_version=None,
        live_accuracy=None,
        classes={},
    )


def record_of(run: Run, phase: Phase) -> BaseModel:
    dry = run.config().gate.dry_run
    match phase:
        case "gating":
            return verdict(run)
        case "quantizing":
            return QuantizationRecord(variants={})
        case "publishing":
            return PublishRecord(version=None if dry else 1, active=not dry and verdict(run).passed)
        case _:
            return Note()


def point(run: Run, phase: str, where: str) -> None:
    file = run.folder.parent.parent / "points" / f"{phase}-{where}"
    if file.exists():
        file.with_suffix(f".{os.getpid()}").touch()
    while file.exists():
        time.sleep(0.01)


def work(run: Run, phase: Phase) -> None:
    """Does STEPS steps, each written down once however often the process is killed in between."""
    checkpoint = run.checkpoints / phase
    run.checkpoints.mkdir(exist_ok=True)
    for step in range(int(checkpoint.read_text()) if checkpoint.exists() else 0, STEPS):
        with (run.folder / "steps.txt").open("a") as file:
            file.write(f"{phase} {step}\n")
        checkpoint.with_suffix(".tmp").write_text(str(step + 1))
        checkpoint.with_suffix(".tmp").rename(checkpoint)
        if step == 1:
            point(run, phase, "middle")


def phase_program(run: Run, phase: Phase) -> int:
    point(run, phase, "start")
    with run.locked():
        if run.done(phase):
            return 0
        with run.progress.open("a") as file:
            file.write(json.dumps({"event": "phase", "time": time.time(), "phase": phase}) + "\n")
        if (run.folder.parent.parent / "points" / f"{phase}-fail").exists():
            sys.stderr.write("a warning\nerror: the images are upside down\nanother warning\n")
            return 1
        work(run, phase)
        run.finish(phase, record_of(run, phase))
    point(run, phase, "end")
    return 0


def fast(run: Run, phases: Sequence[Phase]) -> list[str]:
    """Returns a command that writes the records whole, as phases do, and does nothing else: a few milliseconds."""
    script = """order=$1; run=$2; shift 2
    while [ "$1" ]; do echo "$2" > "$1.tmp"; mv "$1.tmp" "$1"; echo $run >> $order; shift 2; done"""
    records = [
        word
        for phase in phases
        for word in (str(run.folder / f"{phase}.json"), record_of(run, phase).model_dump_json())
    ]
    return ["sh", "-c", script, "-", str(run.folder.parent.parent / "order.txt"), run.name, *records]


def own(run: Run, phases: Sequence[Phase]) -> list[str]:
    return [sys.executable, "-m", "tests.training.stand_in", "phases", str(run.folder), *phases]


def main(kind: str, *arguments: str) -> int:
    if kind == "phases":
        folder, *phases = arguments
        lifeline.follow()
        # any(): the first that fails is the last
        return int(any(phase_program(Run(Path(folder)), phase) for phase in phases))  # type: ignore[arg-type]  # the worker's words
    from training.jobs.settings import SharedSettings  # what only a worker needs: a phase starts in half the time
    from training.jobs.worker import Worker

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Worker(SharedSettings(), arguments[0], command=fast if kind == "fast" else own, poll_s=0.05).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
