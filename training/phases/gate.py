"""The gating phase: decides whether the candidate is good enough to replace the active version."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import Gate
from training.contract.intervals import Proportion
from training.contract.repository import ModelRepository
from training.contract.verdict import ClassRecall, Comparison, Verdict
from training.datasets.loading import read_samples
from training.datasets.report import DatasetReport
from training.errors import few
from training.exported.classifier import published
from training.phases.images import images_of
from training.runs.console import ProgressLog
from training.runs.run import Run

CLASS_IMAGES = 2  # test images of a class that may be lost in any case: of few images, one is a large share
NAMED = 5  # classes listed in the reasons, the worst first; the verdict has the figures of all


@dataclass(frozen=True)
class Answers:
    """A classifier's answers on the test images: its classes, and the label that it gives each image, str [N]."""

    labels: list[str]
    named: NDArray[np.str_]


def gate(run: Run, repository: ModelRepository, log: ProgressLog) -> Verdict:
    """Measures the active version on the candidate's test images, with the decode that serves, and judges.

    Raises ContractError when the active version cannot be read, DatasetError.
    """
    config = run.config().gate
    version = repository.active()
    compared = version is not None and config.policy in ("better_or_equal", "better")
    log.announce("gating", f"against version {version}, which is active" if compared else "")
    report = run.record("checking", DatasetReport)
    labels = report.labels
    test = [sample.label for sample in read_samples(run.samples) if sample.split == "test"]
    with np.load(run.answers) as answers:
        candidate = Answers(labels, np.array(labels)[answers["test"]])
    active = active_answers(run, repository, version) if version is not None and compared else None
    verdict = judge(config, np.array(labels)[test], candidate, active, version)
    if (baseline := report.baseline) and verdict.accuracy <= baseline.accuracy and baseline.images == verdict.images:
        verdict.notes.append(f"the baseline is as good without a network: {baseline.render()}")
    log.tell(render(verdict))
    return verdict


def active_answers(run: Run, repository: ModelRepository, version: int) -> Answers:
    """Returns the active version's answers on the candidate's test images. Raises ContractError, DatasetError."""
    manifest, classify = published(repository, version)
    test = images_of(run, "test", preprocessing=manifest.preprocessing)["test"]
    return Answers(manifest.labels, np.array(manifest.labels)[classify(test.images).argmax(1)])


def judge(
    gate: Gate, true: NDArray[np.str_], candidate: Answers, active: Answers | None, active_version: int | None
) -> Verdict:
    """Applies the gate's rules. `true` has the labels of the test images, str [N].

    `active` is None where the candidate is compared with nothing. Images of a class that the active version does not
    know count as its wrong answers.
    """
    right = candidate.named == true
    accuracy = Proportion(int(right.sum()), len(true))
    most_frequent = float(np.unique(true, return_counts=True)[1].max() / len(true))
    recalls = _recalls(true, candidate, active)
    reasons = _below_minimum(gate, most_frequent, accuracy)
    notes: list[str] = []
    comparison = active_accuracy = None
    if active is not None:
        from training.exported.comparison import compare_answers  # SciPy takes a second to import

        active_right = active.named == true
        active_accuracy = Proportion(int(active_right.sum()), len(true))
        comparison = compare_answers(right, active_right, gate.significance)
        reasons += _against_active(gate, candidate, active, active_version, comparison, recalls)
        if lost := sorted(set(active.labels) - set(candidate.labels)):
            sentence = f"the active version knows classes that the candidate lacks: {few(lost)}"
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
        images=len(true),
        accuracy=accuracy.share,
        accuracy_interval=accuracy.interval,
        minimum=most_frequent if gate.minimum is None else gate.minimum,
        live_version=active_version,
        live_accuracy=active_accuracy and active_accuracy.share,
        live_accuracy_interval=active_accuracy and active_accuracy.interval,
        comparison=comparison,
        classes=recalls,
    )


def _below_minimum(gate: Gate, most_frequent: float, accuracy: Proportion) -> list[str]:
    if gate.minimum is None and accuracy.share <= most_frequent:
        return [
            f"accuracy {accuracy} should be above {most_frequent:.4f}, the accuracy of always naming the most frequent "
            "class"
        ]
    if gate.minimum is not None and accuracy.share < gate.minimum:
        return [f"accuracy {accuracy} should be at least gate.minimum, {gate.minimum:.4f}"]
    return []


def _recalls(true: NDArray[np.str_], candidate: Answers, active: Answers | None) -> dict[str, ClassRecall]:
    recalls = {}
    for label in candidate.labels:
        rows = true == label
        recalls[label] = ClassRecall(
            candidate=float((candidate.named[rows] == label).mean()),
            live=float((active.named[rows] == label).mean()) if active and label in active.labels else None,
            images=int(rows.sum()),
        )
    return recalls


def _against_active(
    gate: Gate,
    candidate: Answers,
    active: Answers,
    active_version: int | None,
    comparison: Comparison,
    recalls: dict[str, ClassRecall],
) -> list[str]:
    if not set(candidate.labels) & set(active.labels):
        return [
            f"version {active_version}, which is active, knows other classes ({few(active.labels)}), none of "
            f"{few(candidate.labels)}: give this model another name (name), or let it replace version {active_version} "
            "(gate.policy always)"
        ]
    reasons = []
    lost = (comparison.live_only - comparison.candidate_only) / comparison.images
    if comparison.outcome == "worse" and lost > gate.tolerance:
        within = f" by more than gate.tolerance {gate.tolerance:g}" if gate.tolerance else ""
        reasons.append(f"it should not be worse than the active version{within}: {comparison.render()}")
    if gate.policy == "better" and comparison.outcome != "better":
        reasons.append(f"gate.policy is better: {comparison.render()}")
    return reasons + _fallen_classes(gate, recalls)


def _fallen_classes(gate: Gate, recalls: dict[str, ClassRecall]) -> list[str]:
    fallen = []
    for label, recall in sorted(recalls.items()):
        images = recall.images or 0
        allowed = max(CLASS_IMAGES, gate.class_tolerance * images)
        ours = Proportion.of(recall.candidate, images).count
        theirs = Proportion.of(recall.live or 0, images).count
        if theirs - ours > allowed:
            reason = (
                f"class {label!r}: {ours} of {images} images right, the active version {theirs}; it should lose "
                f"at most {allowed:g} ({CLASS_IMAGES} images, or gate.class_tolerance {gate.class_tolerance:g} of them)"
            )
            fallen.append(((theirs - ours) / images, reason))
    fallen.sort(key=lambda fall: -fall[0])
    reasons = [reason for _, reason in fallen[:NAMED]]
    return reasons + ([f"and {len(fallen) - NAMED} more classes lose too many images"] if len(fallen) > NAMED else [])


def render(verdict: Verdict) -> str:
    """Returns the verdict as lines for a person."""
    images = verdict.images or 0
    accuracy = Proportion.of(verdict.accuracy, images)
    lines = [f"{'passed' if verdict.passed else 'rejected'}: test accuracy {accuracy}, {images} images"]
    if verdict.live_accuracy is not None:
        active = Proportion.of(verdict.live_accuracy, images)
        lines.append(f"  version {verdict.live_version}, which is active: {active} on the same images")
    if verdict.comparison and not any(verdict.comparison.render() in reason for reason in verdict.reasons):
        lines.append(f"  {verdict.comparison.render()}")
    return "\n".join([*lines, *(f"  {r}" for r in verdict.reasons), *(f"  note: {n}" for n in verdict.notes)])
