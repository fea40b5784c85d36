"""The gate's rules, and that it measures the live version on the candidate's own test images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.training.conftest import Trained
from training.config import Gate
from training.contract import ModelRepository, Verdict
from training.evaluate import Evaluation, evaluate
from training.gate import gate, judge, render
from training.progress import ProgressLog
from training.run import Run


def candidate(recalls: dict[str, float], images: int = 100) -> Evaluation:
    """A classifier of as many images a class, of which it names such a share right."""
    labels = sorted(recalls)
    true = np.repeat(np.arange(len(labels)), images)
    named = true.copy()
    for row, label in enumerate(labels):
        wrong = images - round(images * recalls[label])
        named[row * images : row * images + wrong] = (row + 1) % len(labels)
    probabilities = np.eye(len(labels), dtype=np.float32)[named]
    return evaluate(labels, true, probabilities, [str(i) for i in range(len(true))])


GOOD = {"cat": 0.9, "dog": 0.8}


def judged(live: dict[str, float] | None, recalls: dict[str, float] = GOOD, **rules: Any) -> Verdict:
    return judge(Gate(**rules), candidate(recalls), live, 7 if live else None)


def test_as_good_as_the_live_version_passes() -> None:
    verdict = judged(GOOD)
    assert verdict.passed
    assert verdict.reasons == []
    assert verdict.live_version == 7
    assert verdict.accuracy == pytest.approx(0.85) == verdict.live_accuracy
    assert verdict.classes["cat"].model_dump() == {"candidate": 0.9, "live": 0.9}


def test_worse_than_the_live_version_is_rejected_within_the_tolerance_it_is_not() -> None:
    live = {"cat": 0.92, "dog": 0.82}
    (reason,) = judged(live).reasons
    assert reason == ("accuracy 0.8500 should be at least that of the live version on the same images, 0.8700")
    assert not judged(live, tolerance=0.019).passed
    assert judged(live, tolerance=0.02).passed


def test_a_class_that_falls_rejects_a_better_candidate() -> None:
    live = {"cat": 0.5, "dog": 0.86}
    (reason,) = judged(live).reasons
    assert reason == (
        "class 'dog': recall 0.8000 should be at most gate.class_tolerance 0.05 below the live version's 0.8600"
    )
    assert judged(live, class_tolerance=0.06).passed


def test_of_many_fallen_classes_the_worst_are_named() -> None:
    live = {f"class {i}": 1.0 for i in range(8)}
    reasons = judged(live, {label: i / 10 for i, label in enumerate(live)}).reasons
    named = [reason.split("'")[1] for reason in reasons if reason.startswith("class ")]
    assert named == [f"class {i}" for i in range(5)]
    assert reasons[-1] == "so it is with 3 more classes"


def test_what_the_live_version_does_not_know_counts_against_it() -> None:
    verdict = judged({"cat": 1.0})
    assert verdict.live_accuracy == pytest.approx(0.5)
    assert verdict.classes["dog"].live is None
    assert not verdict.passed  # by the cat alone
    assert judged({"cow": 1.0}).passed


def test_a_class_that_is_lost_is_noted_and_refused_on_request() -> None:
    live = {"cat": 0.9, "dog": 0.8, "cow": 1.0}
    sentence = "the live version knows classes that the candidate lacks: 'cow'"
    assert judged(live).notes == [sentence]
    assert judged(live).passed
    assert judged(live, keep_classes=True).reasons == [sentence]


def test_the_first_model_has_to_beat_naming_the_most_frequent_class() -> None:
    (reason,) = judged(None, {"cat": 1.0, "dog": 0.0}).reasons
    assert reason == ("accuracy 0.5000 should be above 0.5000, what always naming the most frequent class would reach")
    assert judged(None, {"cat": 1.0, "dog": 0.01}).passed


def test_the_floor_holds_against_any_live_version() -> None:
    assert judged({"cat": 0.1, "dog": 0.1}, minimum=0.85).passed
    (reason,) = judged({"cat": 0.1, "dog": 0.1}, minimum=0.86).reasons
    assert reason == "accuracy 0.8500 should be at least gate.minimum, 0.8600"


def test_policies() -> None:
    worse = {"cat": 0.2, "dog": 0.2}
    always = judged(None, worse, policy="always")
    assert always.passed
    assert "should be above" in always.notes[0]
    assert judged(None, policy="never").reasons == ["gate.policy is never"]


def test_a_verdict_reads_as_text() -> None:
    text = render(judged({"cat": 0.95, "dog": 0.95, "cow": 1.0}))
    assert text.splitlines()[0] == (
        "rejected: test accuracy 0.8500, version 7, which is live, 0.9500 on the same images"
    )
    assert "  note: the live version knows" in text


@pytest.fixture
def repository(trained: Trained, tmp_path: Path) -> ModelRepository:
    """Of its own, with the trained version live."""
    repository = ModelRepository(tmp_path / "models", "small")
    with repository.staging() as staged:
        shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        repository.publish(staged, trained.manifest)
    repository.activate(1)
    return repository


def verdict_on(run: Run, repository: ModelRepository) -> Verdict:
    return gate(run, repository, ProgressLog(run.folder / "again.jsonl", Console(quiet=True)))


def test_the_live_version_is_measured_as_it_serves(trained: Trained, repository: ModelRepository) -> None:
    """The candidate against itself: the same figures, reached by Evaluation and by the gate's own way."""
    verdict = verdict_on(trained.run, repository)
    assert verdict.passed
    assert verdict.live_version == 1
    assert verdict.live_accuracy == pytest.approx(verdict.accuracy)
    for recall in verdict.classes.values():
        assert recall.live == pytest.approx(recall.candidate)


def test_names_are_compared_and_not_numbers(trained: Trained, repository: ModelRepository) -> None:
    """A live version with its labels shuffled names everything wrong."""
    path = repository.path(1) / "manifest.json"
    labels = trained.manifest.labels
    shuffled = trained.manifest.model_copy(update={"labels": labels[1:] + labels[:1]})
    path.write_text(shuffled.model_dump_json())
    verdict = verdict_on(trained.run, repository)
    assert verdict.live_accuracy is not None
    assert verdict.live_accuracy < 0.2
