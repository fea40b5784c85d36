"""A whole run: what it writes, what it refuses, and that a killed one ends as an unbroken one does."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.conftest import Trained
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.contract import ModelRepository
from training.dataset import Split
from training.runtime import keras
from training.train import RunError, class_weight, optimizer, publish_run, train


def events(run: Path, kind: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_a_run_ends_as_a_published_version(trained: Trained) -> None:
    manifest, repository = trained.manifest, trained.repository
    assert repository.versions() == [1]
    assert repository.active() is None  # going live is a step of its own
    repository.verify_files(1)
    assert manifest.labels == list("0123456789")
    assert manifest.metrics["test"].accuracy > 0.5
    assert manifest.dataset.images == {"train": 1259, "val": 269, "test": 269}
    assert manifest.parity.top1_equal == manifest.parity.images == 269
    assert manifest.config == trained.config.model_dump(mode="json")
    assert manifest.training_seconds > 0
    assert {"tensorflow", "keras", "tf2onnx", "onnx", "python"} <= set(manifest.libraries)


def test_the_report_lies_in_the_version(trained: Trained) -> None:
    report = trained.repository.path(1) / "report"
    assert {path.name for path in report.iterdir()} == {
        "history.png", "confusion.png", "predictions.png", "history.json", "dataset.json", "val.json", "test.json",
    }  # fmt: skip
    test = json.loads((report / "test.json").read_text())
    assert test["accuracy"] == trained.manifest.metrics["test"].accuracy
    assert np.trace(test["confusion"]) == round(test["accuracy"] * test["images"])


def test_progress_can_be_followed_by_another_process(trained: Trained) -> None:
    phases = [event["phase"] for event in events(trained.run, "phase")]
    assert phases == ["checking", "training", "exporting", "verifying", "evaluating", "publishing"]
    epochs = events(trained.run, "epoch")
    assert [event["epoch"] for event in epochs] == [1, 2, 3]
    assert all(0 <= float(str(event["val_accuracy"])) <= 1 for event in epochs)
    for step in events(trained.run, "step"):
        assert {"epoch", "step", "loss", "accuracy", "learning_rate", "images_per_second", "eta_seconds"} <= set(step)


def test_tensorboard_has_histograms(trained: Trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(trained.run / "tensorboard" / "train"))
    accumulator.Reload()
    assert any("stage1_block1_conv2/kernel" in tag for tag in accumulator.Tags()["tensors"])


def test_the_person_watching_sees_time_and_best_epoch(trained: Trained) -> None:
    assert "left" in trained.printed or "epoch 3/3" in trained.printed
    assert "trained for" in trained.printed
    assert "same class on 269 of 269 images" in trained.printed


def test_a_killed_run_resumes_and_ends_like_an_unbroken_one(trained: Trained, tmp_path: Path) -> None:
    run, models = tmp_path / "run", tmp_path / "models"
    config = tmp_path / "config.toml"
    config.write_text(_toml(trained.config))
    command = [sys.executable, "-m", "training", "train", f"--config={config}", f"--run={run}", f"--models={models}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/3  loss"):  # printed once its checkpoint is written
            process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    repository = ModelRepository(models, trained.config.name)
    assert repository.versions() == []

    manifest = train(trained.config, run, repository, resume=True, console=quiet())

    assert repository.versions() == [1]
    assert [event["epoch"] for event in events(run, "epoch")] == [1, 2, 3]
    broken, unbroken = Checkpoint(run / "checkpoints", []), Checkpoint(trained.run / "checkpoints", [])
    assert broken.load_state()
    assert unbroken.load_state()
    for name in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate"):
        assert [epoch[name] for epoch in broken.history] == [epoch[name] for epoch in unbroken.history], name
    assert manifest.dataset.fingerprint == trained.manifest.dataset.fingerprint


def _toml(config: TrainConfig) -> str:
    values = config.model_dump(mode="json")
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines)


def test_the_best_epoch_is_published_not_the_last(trained: Trained) -> None:
    checkpoint = Checkpoint(trained.run / "checkpoints", [])
    assert checkpoint.load_state()
    best = max(checkpoint.history, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))
    assert checkpoint.state["best"]["epoch"] == best["epoch"]
    assert trained.manifest.metrics["val"].accuracy == pytest.approx(best["val_accuracy"], abs=1e-6)


def test_a_finished_run_can_be_published_again(trained: Trained, tmp_path: Path) -> None:
    manifest = publish_run(trained.run, ModelRepository(tmp_path, "small"), console=quiet())
    assert manifest.metrics == trained.manifest.metrics


def test_a_used_folder_is_not_overwritten(trained: Trained) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        train(trained.config, trained.run, trained.repository, console=quiet())


def test_a_resumed_run_keeps_its_config(trained: Trained) -> None:
    changed = trained.config.model_copy(update={"epochs": 9})
    with pytest.raises(RunError, match="keeps its config; epochs would change"):
        train(changed, trained.run, trained.repository, resume=True, console=quiet())


def test_there_has_to_be_a_run_to_resume(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run in"):
        train(trained.config, tmp_path, trained.repository, resume=True, console=quiet())


def test_class_weights_give_each_class_the_same_sum() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    weights = class_weight(Split(np.zeros((4, 1, 1, 3), np.uint8), labels, [None] * 4), 2)  # type: ignore[list-item]
    assert weights == {0: pytest.approx(2 / 3), 1: 2.0}
    assert sum(weights[int(label)] for label in labels) == pytest.approx(4)


@pytest.mark.parametrize(
    ("change", "kind", "first", "last"),
    [
        ({}, "Adam", 5e-3, 5e-3),
        ({"optimizer": "adamw", "weight_decay": 0.05}, "AdamW", 5e-3, 5e-3),
        ({"optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 1}, "SGD", 0.0, 0.0),
        ({"schedule": "cosine"}, "Adam", 5e-3, 0.0),
    ],
)
def test_optimizers_and_schedules(
    trained: Trained, change: dict[str, object], kind: str, first: float, last: float
) -> None:
    chosen = optimizer(trained.config.model_copy(update=change), steps=10)
    assert type(chosen).__name__ == kind
    rates = []
    for step in (0, 10, 30):
        chosen.iterations.assign(step)
        rates.append(float(keras.ops.convert_to_numpy(chosen.learning_rate)))
    assert rates == pytest.approx([first, rates[1], last], abs=1e-9)
    if "warmup_epochs" in change:
        assert rates[1] == pytest.approx(5e-3)
