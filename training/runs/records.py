"""What each phase leaves as its record; `checking` leaves a DatasetReport, `gating` a Verdict."""

from datetime import datetime

from pydantic import BaseModel

from training.contract.manifest import Parity, SplitMetrics, Variant
from training.contract.verdict import Verdict
from training.runs.run import Run


class TrainingRecord(BaseModel):
    """What a training came to. `init_version` is the version that its weights came from, None for random ones."""

    epochs: int
    best_epoch: int
    val_accuracy: float
    seconds: float
    init_version: int | None


class ExportRecord(BaseModel):
    """What was exported."""

    parameters: dict[str, int]


class VerificationRecord(BaseModel):
    """The proof and the figures; `created` tells this package from another one of the same run."""

    created: datetime
    parity: Parity
    metrics: dict[str, SplitMetrics]
    variants: dict[str, Variant]
    notes: list[str] = []


class QuantizationRecord(BaseModel):
    """The variants that will be published, and what an operator should know of one that will not."""

    variants: dict[str, Variant]
    notes: list[str] = []
    skipped: bool = False  # no others were made, since the gate keeps the version aside


class PublishRecord(BaseModel):
    """The version that was made, None after a dry run; `active` where it went live."""

    version: int | None
    active: bool


def verdict_of(run: Run) -> Verdict:
    """Returns the gate's verdict with the notes on the variants. Raises RunError before there is a verdict."""
    verdict = run.record("gating", Verdict)
    if run.done("quantizing"):
        verdict.notes.extend(run.record("quantizing", QuantizationRecord).notes)
    return verdict
