"""The gate's rules, and that it measures the active version on the candidate's own test images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from tests.training.conftest import Trained
from training.config import Gate
from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.phases.gate import Answers, gate, judge, render
from training.runs.console import ProgressLog
from training.runs.run import Run

TRUE = {"cat": 100, "dog": 100}  # images of each class


def truth(images: dict[str, int]) -> NDArray[np.str_]:
    return np.repeat(sorted(images), [images[label] for label in sorted(images)])


def answers(right: dict[str, int], images: dict[str, int]) -> Answers:
    """Names so many of each class's images right, the first ones; the others as the class after it."""
    labels = sorted(right)
    named = truth(images).astype(object)
    for label in sorted(images):
        rows = np.flatnonzero(truth(images) == label)[right.get(label, 0) :]
        named[rows] = next((other for other in labels if other != label), label)
    return Answers(labels, named.astype(str))


GOOD = {"cat": 90, "dog": 80}


def judged(
    active: dict[str, int] | None,
    candidate: dict[str, int] | None = None,
    images: dict[str, int] | None = None,
    **rules: Any,  # of several types
) -> Verdict:
    images = images or TRUE
    ours = answers(candidate or GOOD, images)
    theirs = answers(active, images) if active else None
    return judge(Gate(**rules), truth(images), ours, theirs, 7 if active else None)


def test_as_good_as_the_active_version_passes() -> None:
    verdict = judged(GOOD)
    assert verdict.passed
    assert verdict.reasons == []
    assert verdict.live_version == 7
    assert verdict.accuracy == pytest.approx(0.85) == verdict.live_accuracy
    assert verdict.accuracy_interval == pytest.approx((0.794, 0.893), abs=1e-3) == verdict.live_accuracy_interval
    assert verdict.classes["cat"].model_dump() == {"candidate": 0.9, "live": 0.9, "images": 100}
    assert verdict.comparison
    assert verdict.comparison.outcome == "indistinguishable"


def test_worse_beyond_chance_is_rejected_within_the_tolerance_it_is_not() -> None:
    active = {"cat": 93, "dog": 84}
    (reason,) = judged(active).reasons
    assert reason == (
        "it should not be worse than the active version: the candidate alone is right on 0 of 200 images, the active "
        "version alone on 7: worse beyond chance (p = 0.016)"
    )
    assert not judged(active, tolerance=0.034).passed
    assert judged(active, tolerance=0.035).passed


def test_worse_by_chance_passes_and_says_what_would_tell() -> None:
    """One of 27 images, one of 7 and of 9: what a retraining with more photos came to."""
    images = {"bird": 5, "food": 7, "mammal": 9, "plant": 6}
    active = {"bird": 3, "food": 3, "mammal": 6, "plant": 6}
    verdict = judged(active, active | {"food": 2}, images)
    assert verdict.passed, verdict.reasons
    assert "not distinguishable (p = 1); about 135 more test images would tell" in render(verdict)
    (reason,) = judged(active, active | {"food": 2}, images, policy="better").reasons
    assert reason.startswith("gate.policy is better: the candidate alone is right on 0 of 27 images")


def test_better_beyond_chance_passes_the_strict_policy() -> None:
    assert judged({"cat": 60, "dog": 80}, policy="better").passed


def test_a_class_that_falls_rejects_a_better_candidate() -> None:
    active = {"cat": 50, "dog": 86}
    (reason,) = judged(active).reasons
    assert reason == (
        "class 'dog': 80 of 100 images right, the active version 86; it should lose at most 5 (2 images, or "
        "gate.class_tolerance 0.05 of them)"
    )
    assert judged(active, class_tolerance=0.06).passed


@pytest.mark.parametrize(("lost", "passes"), [(1, True), (2, True), (3, False)])
def test_two_images_of_a_class_never_decide(lost: int, passes: bool) -> None:
    images = {"cat": 9, "dog": 9}
    assert judged({"cat": 9, "dog": 5}, {"cat": 9 - lost, "dog": 9}, images).passed is passes


def test_of_many_fallen_classes_the_worst_are_named() -> None:
    active = {f"class {i}": 10 for i in range(8)}
    images = dict.fromkeys(active, 10)
    reasons = judged(active, {label: i for i, label in enumerate(active)}, images).reasons
    named = [reason.split("'")[1] for reason in reasons if reason.startswith("class ")]
    assert named == [f"class {i}" for i in range(5)]
    assert reasons[-1] == "and 3 more classes lose too many images"


def test_what_the_active_version_does_not_know_counts_against_it() -> None:
    verdict = judged({"cat": 100})
    assert verdict.live_accuracy == pytest.approx(0.5)
    assert verdict.classes["dog"].live is None
    assert not verdict.passed  # by the cat alone


def test_other_classes_never_take_a_models_place_by_themselves() -> None:
    digits = {str(i): 0 for i in range(10)}
    (reason,) = judged(digits).reasons
    assert reason == (
        "version 7, which is active, knows other classes ('0', '1', '2', '3', '4' and 5 more), none of 'cat', 'dog': "
        "give this model another name (name), or let it replace version 7 (gate.policy always)"
    )
    assert judged(digits, policy="always").passed


def test_a_class_that_is_lost_is_noted_and_refused_on_request() -> None:
    active = {"cat": 90, "dog": 80, "cow": 0}
    sentence = "the active version knows classes that the candidate lacks: 'cow'"
    assert judged(active).notes == [sentence]
    assert judged(active).passed
    assert judged(active, keep_classes=True).reasons == [sentence]


def test_the_first_model_has_to_beat_naming_the_most_frequent_class() -> None:
    (reason,) = judged(None, {"cat": 100, "dog": 0}).reasons
    assert reason == (
        "accuracy 0.5000 (95 %: 0.43 to 0.57) should be above 0.5000, the accuracy of always naming the most "
        "frequent class"
    )
    assert judged(None, {"cat": 100, "dog": 1}).passed


def test_the_floor_holds_against_any_active_version() -> None:
    assert judged({"cat": 10, "dog": 10}, minimum=0.85).passed
    (reason,) = judged({"cat": 10, "dog": 10}, minimum=0.86).reasons
    assert reason == "accuracy 0.8500 (95 %: 0.79 to 0.89) should be at least gate.minimum, 0.8600"


def test_policies() -> None:
    worse = {"cat": 20, "dog": 20}
    always = judged(None, worse, policy="always")
    assert always.passed
    assert "should be above" in always.notes[0]
    assert judged(None, policy="never").reasons == ["gate.policy is never"]


def test_a_verdict_reads_as_text() -> None:
    lines = render(judged({"cat": 95, "dog": 95, "cow": 0})).splitlines()
    assert lines[0] == "rejected: test accuracy 0.8500 (95 %: 0.79 to 0.89), 200 images"
    assert lines[1] == "  version 7, which is active: 0.9500 (95 %: 0.91 to 0.97) on the same images"
    assert lines[2].startswith("  it should not be worse than the active version: ")
    assert lines[-1].startswith("  note: the active version knows")


@pytest.fixture
def repository(trained: Trained, tmp_path: Path) -> ModelRepository:
    """Returns a repository with the trained version active."""
    repository = ModelRepository(tmp_path / "models", "small")
    with repository.staging() as staged:
        shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        repository.publish(staged, trained.manifest)
    repository.activate(1)
    return repository


def verdict_on(run: Run, repository: ModelRepository) -> Verdict:
    return gate(run, repository, ProgressLog(run.folder / "again.jsonl", Console(quiet=True)))


def test_the_active_version_is_measured_as_it_serves(trained: Trained, repository: ModelRepository) -> None:
    """The candidate against itself: the same answers, those of verification and those of the version's own file."""
    verdict = verdict_on(trained.run, repository)
    assert verdict.comparison
    assert (verdict.comparison.candidate_only, verdict.comparison.live_only) == (0, 0)
    assert verdict.passed
    assert verdict.live_version == 1
    assert verdict.live_accuracy == pytest.approx(verdict.accuracy)
    for recall in verdict.classes.values():
        assert recall.live == pytest.approx(recall.candidate)


def test_names_are_compared_and_not_numbers(trained: Trained, repository: ModelRepository) -> None:
    """An active version with its labels shuffled names everything wrong."""
    path = repository.path(1) / "manifest.json"
    labels = trained.manifest.labels
    shuffled = trained.manifest.model_copy(update={"labels": labels[1:] + labels[:1]})
    path.write_text(shuffled.model_dump_json())
    verdict = verdict_on(trained.run, repository)
    assert verdict.live_accuracy is not None
    assert verdict.live_accuracy < 0.2
