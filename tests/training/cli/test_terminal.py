"""The tables in a terminal of 80 columns: nothing is cut off, whatever the names are."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.process import ROOT, environment
from tests.terminal import Terminal
from tests.training.conftest import Trained
from tests.training.engine import Engine, ask
from training.cli.command import main
from training.contract.manifest import DatasetRecord, Manifest
from training.contract.repository import ModelRepository
from training.contract.verdict import Verdict
from training.runs.run import Run

LONG = "photographs_of_flowers_and_of_birds_from_all_over_the_country_2026"
PLAIN = [{"NO_COLOR": "1"}, {"TERM": "dumb"}]


def shown(*arguments: object, **variables: str) -> str:
    """Returns the screen of a command, in which every line fits and nothing is cut off."""
    variables = environment() | {"TZ": "UTC"} | variables
    with Terminal(sys.executable, "-m", "training", *arguments, environment=variables) as terminal:
        assert terminal.to_end() == 0, terminal.text
    assert "…" not in terminal.text
    written = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", terminal.transcript).decode()
    # a sentence is the terminal's to wrap: a path in it is copied
    assert all(len(line) <= 80 for line in written.splitlines() if "  " in line), written
    return terminal.text


def squeezed(text: str, column: slice = slice(None)) -> str:
    """Returns the text of a column, with folded lines joined again."""
    return "".join(line[column].replace(" ", "") for line in text.splitlines())


def verdict(passed: bool) -> Verdict:
    return Verdict.model_construct(
        passed=passed,
        reasons=[] if passed else ["worse"],
        notes=[],
        policy="better_or_equal",
        dry_run=False,
        accuracy=0.5,
        minimum=0.1,
        live_version=1,
        live_accuracy=None,
        classes={},
    )


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1 earlier active, 2 active, 3 rejected, 4 failed, 5 a copy under way; 2 began with the weights of 1."""
    repository = ModelRepository(tmp_path / "models", "small")

    def publish(run: str, data: str, init: int | None, *, passed: bool) -> int:
        with repository.staging() as staged:
            shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
            (staged / "manifest.json").unlink()
            manifest: Manifest = trained.manifest.model_copy(
                update={
                    "run": run,
                    "init_version": init,
                    "dataset": DatasetRecord(path=data, fingerprint="f", images={"test": 269}, seed=0),
                    "gate": verdict(passed),
                }
            )
            return repository.publish(staged, manifest).version

    repository.activate(publish("a", "/data/datasets/fashion/3/images", None, passed=True))
    repository.activate(publish("b", f"/data/{LONG}", 1, passed=True))
    publish("c", "/data/digits", None, passed=False)
    repository.activate(publish("d", "/data/digits", 1, passed=True))
    repository.roll_back(2, bad={4: "calls cats dogs"})
    (repository.folder / "5").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("variables", PLAIN)
def test_models_list(models: Path, trained: Trained, variables: dict[str, str]) -> None:
    text = shown("models", "list", "--models", models, "--name", "small", **variables)
    rows = {line.split()[0]: line for line in text.splitlines() if line[:7].strip().isdigit()}
    assert [line.split()[1] for line in rows.values()] == ["earlier", "active", "rejected", "failed", "incomplete"]
    assert "fashion@3" in squeezed(text)
    table = text[: text.index("version 4 was")].splitlines()
    (head,) = (line for line in table if "dataset" in line)
    assert LONG in squeezed("\n".join(table), slice(head.index("dataset"), head.index("classes") - 1))
    accuracy = trained.manifest.metrics["test"].accuracy
    assert all(f"{accuracy:.4f}" in rows[version] for version in "1234")
    assert len(re.findall(r"0\.\d\d to 0\.\d\d", text)) == 4
    assert [rows[version].split()[-1] for version in "1234"] == ["-", "1", "-", "1"]
    assert text.endswith("calls cats dogs\nerror: small/5/manifest.json is missing")


def test_a_pipe_has_room_for_every_line(models: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "models", "list", "--name", "small", "--models", models],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    above, head, first = done.stdout.splitlines()[:3]
    assert above.split() == ["test", "accuracy", "started"]
    assert head.split() == ["version", "state", "created", "dataset", "classes", "(95", "%)", "from"]
    assert "earlier active" in first
    assert LONG in done.stdout


def test_prune_takes_rejected_and_failed_versions_before_any_that_was_active(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = ModelRepository(models, "small")
    prune = ["models", "prune", f"--models={models}", "--name=small", "--keep"]
    assert main([*prune, "4"]) == 0
    assert repository.versions() == [1, 2, 4, 5]  # 3 was never active
    assert main([*prune, "1"]) == 0
    assert repository.versions() == [1, 2, 5]  # 5 is the newest of those that are no worse; 1 and 2 stay in any case
    assert capsys.readouterr().out == "deleted versions: 3\ndeleted versions: 4\n"


def test_the_version_that_a_job_has_just_made_is_spared(models: Path) -> None:
    assert ModelRepository(models, "small").prune(1, spared=3) == [4]


@pytest.fixture
def runs(trained: Trained, tmp_path: Path) -> Path:
    """A finished run, one that was stopped in its training, one whose record is damaged."""
    folder, begun = tmp_path / "runs", 1_800_000_000
    for name in ("resnext50-20261127-101010", "resnext50-20261127-101010-2", f"{LONG}-20261127-101011"):
        shutil.copytree(trained.run.folder, folder / name)
        os.utime(folder / name / "config.json", (begun := begun + 60, begun))
    stopped, damaged = Run(folder / "resnext50-20261127-101010-2"), Run(folder / f"{LONG}-20261127-101011")
    stopped.forget("training", "exporting", "verifying", "quantizing", "gating", "publishing")
    (damaged.folder / "gating.json").write_text("{")
    (folder / "notes").mkdir()
    return folder


@pytest.mark.parametrize("variables", PLAIN)
def test_runs_list(runs: Path, variables: dict[str, str]) -> None:
    text = shown("runs", "list", "--folder", runs, **variables)
    assert LONG in squeezed(text, slice(text.index("begun") - 1))
    assert "gating.jsonisdamaged" in squeezed(text)
    shutil.rmtree(runs / f"{LONG}-20261127-101011")
    lines = shown("runs", "list", "--folder", runs, **variables).splitlines()
    names = [line.split()[0] for line in lines if line.startswith("resnext50")]
    assert names == ["resnext50-20261127-101010-2", "resnext50-20261127-101010"]
    text = "\n".join(lines)
    assert re.search(r"\d{4}-\d\d-\d\d( \d\d:\d\d)? +version 1 +3/3 +0\.\d{4} +\d+ MB", text), text
    assert re.search(r"stopped in( training)? +3/3 +- +\d+ MB", text), text
    assert any(line.startswith("2 runs, ") for line in lines)  # the sentence goes on where its path is long


def test_runs_list_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", f"--folder={runs}", "--json"]) == 0
    entries = {entry["run"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) == 3
    done = entries["resnext50-20261127-101010"]
    assert (done["version"], done["epochs"], done["most_epochs"], done["data"]) == (1, 3, 3, "digits")
    assert 0 < done["test_accuracy"] < 1
    assert done["bytes"] > 1_000_000


def test_runs_prune_leaves_the_newest_and_what_is_busy(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    busy = Run(runs / "resnext50-20261127-101010-2")
    with busy.locked():
        assert main(["runs", "prune", f"--folder={runs}", "--keep=0"]) == 0
        assert sorted(path.name for path in runs.iterdir()) == ["notes", busy.name]
    assert main(["runs", "prune", f"--folder={runs}", "--keep=1"]) == 0
    assert busy.folder.exists()
    assert capsys.readouterr().out.endswith("deleted runs: none\n")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


@pytest.mark.parametrize("variables", PLAIN)
def test_jobs_list_and_show(engine: Engine, variables: dict[str, str]) -> None:
    done, failing = engine.submit(name="animals-of-the-whole-world").id, engine.submit(key="k").id
    engine.worker("a-worker-on-a-host-with-a-long-name", kind="fast")
    engine.ends(done)
    engine.ends(failing)
    waiting = engine.submit().id
    ask(engine.jobs.cancel(waiting))
    places = [f"--{name}={path}" for name, path in engine.settings.items()]
    text = shown("jobs", "list", *places, **variables)
    assert all(id in text for id in (done, failing, waiting))
    assert text.count("succeeded") == 2
    assert "cancelled" in text
    assert text.endswith("3 of 3")
    text = shown("jobs", "show", done, *places, **variables)
    times = [
        line.split(maxsplit=1)[1]
        for line in text.splitlines()
        if line.split()[:1][0] in ("created", "started", "finished")
    ]
    assert len(times) == 3
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", time) for time in times)
    assert re.search(r"^dataset +photos$", text, re.MULTILINE)
    assert "{" not in text


def test_summary_of_layers() -> None:
    text = shown("summary", "--layers", "--image-size=32", "--classes=10", NO_COLOR="1")
    assert re.search(r"stage4_block3_norm3 +BatchNormalization +1 x 1 x 2048 +8,192", text)
    assert "trainable parameters: 23,000,394" in text


def test_evaluate(trained: Trained, digits: Path, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models", "small")
    labels = [LONG if label == "3" else label for label in trained.manifest.labels]
    with repository.staging() as staged:
        shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        repository.activate(repository.publish(staged, trained.manifest.model_copy(update={"labels": labels})).version)
    for label in ("3", "4"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for file in sorted((digits / label).iterdir())[:3]:
            shutil.copy(file, tmp_path / "images" / label)
    (tmp_path / "images" / "3").rename(tmp_path / "images" / LONG)
    text = shown("evaluate", tmp_path / "images", "--name=small", f"--models={tmp_path}/models", NO_COLOR="1")
    assert LONG in squeezed(text, slice(1, 38))


def test_dataset_check(tmp_path: Path) -> None:
    for name in ("short", "猫", "a class with a name that is longer than what most people would write " * 2):
        (tmp_path / "data" / name.strip()).mkdir(parents=True)
        for k in range(4):
            Image.linear_gradient("L").crop((0, k, 9, 99 + len(name))).save(
                tmp_path / "data" / name.strip() / f"{k}.png"
            )
    text = shown("dataset", "check", tmp_path / "data", NO_COLOR="1")
    assert re.search(r"short +2 +1 +1", text)
    assert re.search(r"猫 +2 +1 +1", text)
