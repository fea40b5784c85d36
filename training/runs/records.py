"""The record that each phase leaves. `checking` leaves a DatasetReport, `gating` a Verdict."""

from datetime import datetime

from pydantic import BaseModel

from training.contract.manifest import Parity, SplitMetrics, Variant
from training.contract.verdict import Verdict
from training.runs.run import Run


class TrainingRecord(BaseModel):
    """The result of a training. A head alone is trained in no epoch.

    `cross_validation` has the figures over all images, each answered by a head that was fitted without it.
    """

    method: str = "scratch"  # all that an earlier release knew
    epochs: int
    best_epoch: int
    val_accuracy: float
    seconds: float
    cross_validation: SplitMetrics | None = None


class ExportRecord(BaseModel):
    """The numbers of parameters of the exported model, by kind."""

    parameters: dict[str, int]


class VerificationRecord(BaseModel):
    """The proof and the figures. `created` distinguishes this package from others of the same run."""

    created: datetime
    parity: Parity
    metrics: dict[str, SplitMetrics]
    variants: dict[str, Variant]
    notes: list[str] = []


class QuantizationRecord(BaseModel):
    """The variants that will be published, and notes on those that will not."""

    variants: dict[str, Variant]
    notes: list[str] = []
    skipped: bool = False  # no variants were made, since the gate keeps the version aside


class PublishRecord(BaseModel):
    """The version that was made, None after a dry run, and whether it became active."""

    version: int | None
    active: bool


def head_that_stays(run: Run) -> int | None:
    """Returns the version of the head alone, where a fine-tuning was rejected after it and it stays active."""
    head = run.of_head()
    if not head.done("publishing") or not run.done("publishing") or run.record("publishing", PublishRecord).active:
        return None
    published = head.record("publishing", PublishRecord)
    return published.version if published.active else None


def verdict_of(run: Run) -> Verdict:
    """Returns the gate's verdict with the notes on the variants. Raises RunError before there is a verdict."""
    verdict = run.record("gating", Verdict)
    if run.done("quantizing"):
        verdict.notes.extend(run.record("quantizing", QuantizationRecord).notes)
    return verdict
