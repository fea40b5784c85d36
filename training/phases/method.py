"""Chooses how a run trains: the head alone, all layers after the head, or all layers from the start."""

from typing import Literal

from training.config import TrainConfig
from training.datasets.report import DatasetReport
from training.runs.console import ProgressLog, duration
from training.runs.plan import Plan, read_plan, write_plan
from training.runs.run import Run
from training.runs.source import HOW_TO_GET_WEIGHTS, Source, require_weights
from training.system.gpu import has_nvidia_driver

FEW_IMAGES = 10  # training images a class: with fewer, training all layers gains nothing over the head


def plan_of(run: Run, source: Source | None, log: ProgressLog) -> Plan:
    """Returns the run's plan. The first call makes it and says why. Raises MethodError."""
    plan = read_plan(run)
    if plan is None:
        plan = _choose(run.config(), run.record("checking", DatasetReport), source, log)
        write_plan(run, plan)
    return plan


def _choose(config: TrainConfig, report: DatasetReport, source: Source | None, log: ProgressLog) -> Plan:
    require_weights(config)
    method = _of_auto(config, report, source, log) if config.method == "auto" else config.method
    if method == "head" or config.time_budget is None:
        return Plan(method=method)
    return _within_budget(config, method, report, config.time_budget, log)


def _of_auto(
    config: TrainConfig, report: DatasetReport, source: Source | None, log: ProgressLog
) -> Literal["head", "finetune", "scratch"]:
    """Chooses a method, and says why. With a time budget a fine-tuning still has to fit into it."""
    if source is None:
        log.tell(
            "method scratch: all layers, from random weights. From published weights a head takes seconds and does "
            f"more with few photos: {HOW_TO_GET_WEIGHTS}"
        )
        return "scratch"
    if config.epochs is not None:
        log.tell("method finetune: a number of epochs is asked for")
        return "finetune"
    images, classes = report.images["train"], len(report.labels)
    a_class = f"{images / classes:.0f} images a class"
    if images < FEW_IMAGES * classes:
        log.tell(f"method head: with {a_class} the training of all layers gains nothing over it")
        return "head"
    if has_nvidia_driver() and _trains_on_gpu():
        log.tell(f"method finetune: {a_class}, and a GPU")
        return "finetune"
    if config.time_budget:
        return "finetune"
    log.tell(
        "method head: to train all layers takes long on a CPU. --method finetune does it; --time-budget 30m does it "
        "where that is enough"
    )
    return "head"


def _within_budget(
    config: TrainConfig, method: Literal["finetune", "scratch"], report: DatasetReport, budget: float, log: ProgressLog
) -> Plan:
    """Measures an epoch, and plans as many as the budget has time for. `auto` takes the head where some have none."""
    from training.phases.estimate import planned_epochs, seconds_of_epoch

    epochs = planned_epochs(config, method, report.images["train"])
    seconds = seconds_of_epoch(config, method, len(report.labels), report.images)
    line = f"{epochs} epochs take about {duration(epochs * seconds)}, the time budget is {duration(budget)}"
    if epochs * seconds <= budget:
        log.tell(f"method {method}: {line}")
        return Plan(method=method, epochs=epochs)
    if config.method == "auto" and method == "finetune":
        log.tell(f"method head: {line}")
        return Plan(method="head")
    fewer = max(1, int(budget / seconds))
    log.tell(f"method {method}: {line}; so it trains {fewer}")
    return Plan(method=method, epochs=fewer)


def _trains_on_gpu() -> bool:
    from training.network.runtime import GPUS  # TensorFlow takes seconds to import

    return bool(GPUS)
