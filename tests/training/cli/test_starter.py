"""`resnext starter`: a first model, where there is none."""

import sys
from pathlib import Path

import pytest

from tests.process import ROOT, environment
from tests.terminal import Terminal
from training.cli.command import main
from training.config import TrainConfig
from training.jobs.starter import starter_settings
from training.runs.run import Run


def test_where_a_version_is_active_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine/1").mkdir(parents=True)
    (tmp_path / "models/mine/ACTIVE").write_text("1\n")
    assert main(["starter", "--name=mine"]) == 0
    assert capsys.readouterr().out == "version 1 of mine is active in models: no starter is needed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_where_none_is_active_the_digits_are_written_and_trained_on(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "training", "starter", "--name=mine", "--models=m")
    with Terminal(*command, environment=environment() | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path) as terminal:
        terminal.until(lambda terminal: "checking" in terminal.text)
        (run,) = map(Run, (tmp_path / "runs").iterdir())
        wanted = starter_settings() | {"data": tmp_path / "data/digits", "name": "mine"}
        assert run.config() == TrainConfig.model_validate(wanted)
        assert run.models() == tmp_path / "m"
        assert len(list((tmp_path / "data/digits").glob("*/*.png"))) == 1797
