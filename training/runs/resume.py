"""Resuming a run that was stopped: with the images in another place, or for more epochs than it had."""

import json
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from training.config import TrainConfig, flag
from training.datasets.layout import Sample
from training.datasets.listing import text
from training.datasets.loading import read_samples, write_samples
from training.datasets.report import DatasetReport
from training.runs.plan import read_plan, write_plan
from training.runs.progress import PHASES, read_progress
from training.runs.run import Run, RunError
from training.system.durable import write_atomically
from training.system.files import sha256

MAY_CHANGE = frozenset({"data", "epochs"})


def resume(run: Run, config: TrainConfig) -> None:
    """Lets the run go on with `config`, which may differ from its own in the place of the images and in more epochs.

    Raises RunError for any other difference, or when another process works in the run; the run stays as it was.
    """
    run.config()  # raises where there is no run
    with run.locked():
        _resume(run, config)


def _resume(run: Run, config: TrainConfig) -> None:
    recorded = run.config()
    if changed := [name for name, value in config if value != getattr(recorded, name) and name not in MAY_CHANGE]:
        raise RunError(f"a resumed run keeps its config; {', '.join(map(flag, changed))} would change in {run.folder}")
    more = wants_more(run, config)
    if more and run.done("training") and not _states(run):
        raise RunError(f"{run.folder} has no checkpoint to go on from: it was deleted when the run was done")
    data = config.data.absolute()
    if _same_folder(recorded.data, data):
        data = recorded.data
    elif run.done("checking"):
        move_images(run, recorded.data, data)
    if more:
        if plan := read_plan(run):
            write_plan(run, plan.model_copy(update={"epochs": None}))
        run.forget(*PHASES[PHASES.index("training") :])
        _start_waiting_again(run)
    run.write_config(config.model_copy(update={"data": data}))


def wants_more(run: Run, config: TrainConfig) -> bool:
    """Whether `config` has more epochs than the run has. Raises RunError where it has fewer."""
    recorded = run.config().epochs
    if config.epochs is None or config.epochs == recorded:
        return False
    planned = recorded or next((epoch.epochs for epoch in read_progress(run.progress).epochs), 0)
    if config.epochs < planned:
        raise RunError(f"a resumed run may get more epochs: {run.folder} has {planned}, --epochs is {config.epochs}")
    return config.epochs > planned


def require_images(run: Run) -> None:
    """Raises RunError when images that the run was checked with are gone. Their folder may have moved."""
    if not run.done("checking") or run.next_phase() == "publishing":
        return
    samples = read_samples(run.samples)
    if gone := [sample.path for sample in samples if not sample.path.is_file()]:
        command = shlex.join(["resnext", "train", "DIR", "--run", str(run.folder), "--resume"])
        raise RunError(
            f"images of {run.folder} are gone: {len(gone)} of {len(samples)}, the first is {gone[0]}. If they "
            f"have moved, go on with: {command}"
        )


def move_images(run: Run, old: Path, new: Path) -> None:
    """Takes the images of the run from another folder from now on. Raises RunError where that has other images."""
    samples = read_samples(run.samples)
    if samples[0].path.is_relative_to(new):  # an earlier move was interrupted
        old = new
    moved = [replace(sample, path=new / sample.path.relative_to(old)) for sample in samples]
    if other := _first_other(moved):
        raise RunError(
            f"{new} should hold the {len(moved)} images that {run.folder} was checked with; {other.name} is "
            f"{'another one' if other.path.is_file() else 'missing'}"
        )
    write_samples(run.samples, moved)
    report = run.record("checking", DatasetReport)
    run.finish("checking", report.model_copy(update={"folder": text(str(new))}))


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:  # one of the folders does not exist
        return False


def _first_other(samples: Iterable[Sample]) -> Sample | None:
    """Returns the first file that is missing or has other bytes than before."""
    with ThreadPoolExecutor() as pool:
        for sample, now in pool.map(lambda sample: (sample, _sha256(sample.path)), samples):
            if now != sample.sha256:
                pool.shutdown(cancel_futures=True)
                return sample
    return None


def _sha256(path: Path) -> str | None:
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    try:
        return sha256(path)
    except OSError:
        return None


def _states(run: Run) -> list[Path]:
    """Returns the checkpoints' states, which training.network.checkpoint writes."""
    return [*run.checkpoints.glob("state.json"), *run.checkpoints.glob("*.state.json")]


def _start_waiting_again(run: Run) -> None:
    """Lets a training that stopped early go on: it waits for a better epoch as long as at the start."""
    for path in _states(run):
        try:
            state = json.loads(path.read_text())
        except ValueError:  # the training passes over a damaged state, and says so
            continue
        state["stopped"] = False
        if waiting := state["callbacks"].get("EarlyStopping"):
            waiting |= {"wait": 0, "stopped_epoch": 0}
        write_atomically(path, json.dumps(state, indent=1))
