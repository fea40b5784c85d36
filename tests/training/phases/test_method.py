"""The choice of how a run trains."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.training.conftest import Trained
from training.config import InitialWeights, TrainConfig
from training.datasets.report import DatasetReport
from training.phases import method as module
from training.phases.method import plan_of
from training.runs.console import ProgressLog
from training.runs.plan import Plan, read_plan
from training.runs.run import Run
from training.runs.source import MethodError, Source, find_source
from training.weights.store import WeightsStore


@pytest.fixture
def source(trained: Trained) -> Source:
    found = find_source(InitialWeights.parse("1"), trained.repository, WeightsStore(Path("none")))
    assert found
    return found


class Chosen:
    """A run whose report says how many images there are. `choose` plans it and returns what it said."""

    def __init__(self, trained: Trained, folder: Path, images: int, **settings: Any) -> None:
        self.run = Run(folder / "run")
        self.run.claim(TrainConfig.model_validate({**trained.config.model_dump(exclude={"epochs"}), **settings}))
        report = trained.run.record("checking", DatasetReport)
        self.run.finish("checking", report.model_copy(update={"images": {"train": images, "val": 20, "test": 20}}))
        self.console = Console(file=io.StringIO(), width=400)

    def choose(self, source: Source | None) -> tuple[Plan, str]:
        plan = plan_of(self.run, source, ProgressLog(self.run.progress, self.console))
        assert isinstance(self.console.file, io.StringIO)
        return plan, self.console.file.getvalue()


def test_random_weights_are_trained_from_scratch_and_say_what_is_missed(trained: Trained, tmp_path: Path) -> None:
    plan, said = Chosen(trained, tmp_path, 1000).choose(None)
    assert plan.method == "scratch"
    assert "resnext weights pull timm/resnext50_32x4d.tv_in1k" in said


def test_few_images_get_a_head(trained: Trained, source: Source, tmp_path: Path) -> None:
    plan, said = Chosen(trained, tmp_path, 99).choose(source)
    assert plan.method == "head"
    assert "10 images a class" in said


def test_more_images_get_a_head_on_a_cpu_unless_time_is_given(
    trained: Trained, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: False)
    plan, said = Chosen(trained, tmp_path, 1000).choose(source)
    assert plan.method == "head"
    assert "--time-budget 30m" in said


def test_epochs_are_a_wish_to_train_all_layers(trained: Trained, source: Source, tmp_path: Path) -> None:
    assert Chosen(trained, tmp_path, 99, epochs=5).choose(source)[0] == Plan(method="finetune")


def test_a_gpu_fine_tunes(trained: Trained, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(module, "_trains_on_gpu", lambda: True)
    assert Chosen(trained, tmp_path, 1000).choose(source)[0].method == "finetune"


@pytest.mark.parametrize(
    ("method", "budget", "expected"),
    [("auto", "10h", "finetune"), ("auto", "1s", "head"), ("scratch", "1s", "scratch")],
)
def test_a_time_budget_is_compared_with_measured_steps(
    trained: Trained, source: Source, tmp_path: Path, method: str, budget: str, expected: str
) -> None:
    plan, said = Chosen(trained, tmp_path, 640, method=method, time_budget=budget, epochs=500).choose(source)
    assert plan.method == expected
    assert "500 epochs take about" in said
    match expected:
        case "finetune":
            assert plan.epochs == 500
        case "head":
            assert plan.epochs is None
        case _:
            assert plan.epochs
            assert plan.epochs < 100


def test_a_plan_is_made_once(trained: Trained, source: Source, tmp_path: Path) -> None:
    chosen = Chosen(trained, tmp_path, 99)
    plan, _ = chosen.choose(source)
    chosen.run.write_config(chosen.run.config().model_copy(update={"method": "finetune"}))
    assert chosen.choose(source)[0] == plan == read_plan(chosen.run)


@pytest.mark.parametrize("method", ["head", "finetune"])
def test_a_method_without_weights_is_refused(trained: Trained, tmp_path: Path, method: str) -> None:
    with pytest.raises(MethodError, match=f"method {method} needs weights .* with init, as weights:tv_in1k or live"):
        Chosen(trained, tmp_path, 99, method=method).choose(None)
