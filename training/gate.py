"""The gating phase: is the candidate good enough to take the live version's place?"""

import numpy as np

from training.classifier import published
from training.config import Gate
from training.contract import ClassRecall, ModelRepository, Verdict
from training.datasets.dataset import load, read_samples
from training.datasets.layout import few
from training.datasets.report import DatasetReport
from training.evaluate import Evaluation
from training.progress import ProgressLog
from training.records import QuantizationRecord
from training.run import Run

ROUNDING = 1e-9  # of a difference of two accuracies
NAMED = 5  # classes in the reasons, those that fell most; the verdict has the figures of all


def gate(run: Run, repository: ModelRepository, log: ProgressLog) -> Verdict:
    """Measures the live version on the candidate's test images, by the code that serves, and judges.

    Raises ContractError when the live version can not be read, DatasetError.
    """
    config = run.config().gate
    candidate = Evaluation.model_validate_json((run.report / "test.json").read_bytes())
    live = repository.active()
    compared = live is not None and config.policy == "better_or_equal"
    log.phase("gating", f"against version {live}, which is live" if compared else "")
    recalls = live_recalls(run, repository, live) if live is not None and compared else None
    verdict = judge(config, candidate, recalls, live)
    verdict.notes.extend(run.record("quantizing", QuantizationRecord).notes)
    log.console.print(render(verdict), highlight=False, markup=False)
    return verdict


def live_recalls(run: Run, repository: ModelRepository, live: int) -> dict[str, float]:
    """Of each class that the live version knows: the share of the candidate's test images that it names right.

    A class of which the test split has no image is 1: nothing was named wrong.
    """
    manifest, classify = published(repository, live)
    test = load(read_samples(run.samples), manifest.preprocessing, run.folder / "cache", ("test",))["test"]
    true = np.array(run.record("checking", DatasetReport).labels)[test.labels]
    named = np.array(manifest.labels)[classify(test.images).argmax(1)]
    return {
        label: float((named[true == label] == label).mean()) if (true == label).any() else 1.0
        for label in manifest.labels
    }


def judge(gate: Gate, candidate: Evaluation, live: dict[str, float] | None, live_version: int | None) -> Verdict:
    """The rules. `live` has the live version's recall by class, None where the candidate is compared with nothing.

    A class that the live version does not know counts against it, as wrong answers.
    """
    recalls = {c.label: ClassRecall(candidate=c.recall, live=(live or {}).get(c.label)) for c in candidate.classes}
    support = {c.label: c.support for c in candidate.classes}
    live_accuracy = None
    reasons: list[str] = []
    notes: list[str] = []
    most_frequent = max(support.values()) / candidate.images
    minimum = most_frequent if gate.minimum is None else gate.minimum
    if gate.minimum is None and candidate.accuracy <= minimum:
        reasons.append(
            f"accuracy {candidate.accuracy:.4f} should be above {minimum:.4f}, what always naming the most frequent "
            "class would reach"
        )
    elif candidate.accuracy < minimum:
        reasons.append(f"accuracy {candidate.accuracy:.4f} should be at least gate.minimum, {minimum:.4f}")
    if live is not None:
        live_accuracy = sum(live.get(label, 0) * count for label, count in support.items()) / candidate.images
        reasons += _against_live(gate, candidate.accuracy, live_accuracy, recalls)
        if lost := sorted(set(live) - set(support)):
            sentence = f"the live version knows classes that the candidate lacks: {few(lost)}"
            (reasons if gate.keep_classes else notes).append(sentence)
    if gate.policy == "always":
        notes, reasons = [*notes, *reasons], []
    elif gate.policy == "never":
        reasons.append("gate.policy is never")
    return Verdict(
        passed=not reasons,
        reasons=reasons,
        notes=notes,
        policy=gate.policy,
        dry_run=gate.dry_run,
        accuracy=candidate.accuracy,
        minimum=minimum,
        live_version=live_version,
        live_accuracy=live_accuracy,
        classes=recalls,
    )


def _against_live(gate: Gate, accuracy: float, live_accuracy: float, recalls: dict[str, ClassRecall]) -> list[str]:
    reasons = []
    if accuracy < live_accuracy - gate.tolerance - ROUNDING:
        within = f" less gate.tolerance {gate.tolerance:g}" if gate.tolerance else ""
        reasons.append(
            f"accuracy {accuracy:.4f} should be at least that of the live version on the same images, "
            f"{live_accuracy:.4f}{within}"
        )
    fallen = [
        (recall.live - recall.candidate, label, recall)
        for label, recall in recalls.items()
        if recall.live is not None and recall.candidate < recall.live - gate.class_tolerance - ROUNDING
    ]
    fallen.sort(key=lambda fall: -fall[0])
    for _, label, recall in fallen[:NAMED]:
        reasons.append(
            f"class {label!r}: recall {recall.candidate:.4f} should be at most gate.class_tolerance "
            f"{gate.class_tolerance:g} below the live version's {recall.live:.4f}"
        )
    if len(fallen) > NAMED:
        reasons.append(f"so it is with {len(fallen) - NAMED} more classes")
    return reasons


def render(verdict: Verdict) -> str:
    """The verdict in lines for a person."""
    against = ""
    if verdict.live_accuracy is not None:
        against = f", version {verdict.live_version}, which is live, {verdict.live_accuracy:.4f} on the same images"
    head = f"{'passed' if verdict.passed else 'rejected'}: test accuracy {verdict.accuracy:.4f}{against}"
    return "\n".join([head, *(f"  {reason}" for reason in verdict.reasons), *(f"  note: {n}" for n in verdict.notes)])
