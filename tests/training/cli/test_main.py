"""The command line: each command on real files, and errors a person can act on."""

import csv
import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.process import ROOT
from tests.training.conftest import Trained
from training.cli.command import main
from training.contract.repository import ModelRepository
from training.runs.run import Run


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Makes a repository with three versions of the small model, each active in turn."""
    repository = ModelRepository(tmp_path / "models", "small")
    for run in "abc":
        with repository.staging() as staged:
            shutil.copytree(trained.repository.path(1), staged, dirs_exist_ok=True)
            (staged / "manifest.json").unlink()
            repository.activate(repository.publish(staged, trained.manifest.model_copy(update={"run": run})).version)
    return tmp_path / "models"


def call(command: str, models: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([*command.split(), f"--models={models}", "--name=small"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_rollback_goes_to_the_version_before_and_ends_at_the_first(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = ModelRepository(models, "small")
    for expected in (2, 1):
        assert call("models rollback", models, capsys)[0] == 0
        assert repository.active() == expected
    code, _, err = call("models rollback", models, capsys)
    assert (code, repository.active()) == (1, 1)
    assert "there is none to go back to" in err


def test_rollback_with_a_reason_is_listed_and_not_come_back_to(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = ModelRepository(models, "small")
    arguments = ["models", "rollback", "--reason", "calls cats dogs", "--models", str(models), "--name", "small"]
    assert main(arguments) == 0
    _, out, _ = call("models list", models, capsys)
    assert [line.split()[:2] for line in out.splitlines() if line.split()[0].isdigit()] == [
        ["1", "earlier"],
        ["2", "active"],
        ["3", "failed"],
    ]
    assert out.endswith("calls cats dogs\n")
    repository.activate(1)
    repository.roll_back()
    assert (repository.active(), repository.predecessors()) == (2, [1])


def test_activate_refuses_a_version_whose_files_changed(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (models / "small" / "1" / "model.onnx").open("ab") as file:
        file.write(b"x")
    code, _, err = call("models activate 1", models, capsys)
    assert code == 1
    assert "model.onnx should have SHA-256" in err
    assert ModelRepository(models, "small").active() == 3


def test_prune_keeps_the_live_one_and_the_one_before(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models rollback", models, capsys)[0] == 0
    code, out, _ = call("models prune --keep 1", models, capsys)
    assert code == 0
    assert "none" in out
    assert call("models activate 3", models, capsys)[0] == 0
    assert "deleted versions: 1" in call("models prune --keep 1", models, capsys)[1]
    assert ModelRepository(models, "small").versions() == [2, 3]


def test_show_prints_the_manifest(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call("models show 2", models, capsys)
    assert json.loads(out)["version"] == 2


def test_predict_names_what_is_on_an_image(models: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(next((digits / label).iterdir())) for label in ("1", "6")]
    code, out, _ = call(f"predict {' '.join(images)} --top-k 2 --json", models, capsys)
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["file"] for answer in answers] == images
    for answer in answers:
        assert len(answer["predictions"]) == 2
        assert answer["predictions"][0]["probability"] >= answer["predictions"][1]["probability"]


@pytest.fixture
def mixed(digits: Path, tmp_path: Path) -> Path:
    """Makes a folder with two digits, a file that is no image, and clutter."""
    folder = tmp_path / "mixed [1]"
    (folder / "below").mkdir(parents=True)
    for place, label in (("6.png", "6"), ("below/1.png", "1")):
        shutil.copy(next((digits / label).iterdir()), folder / place)
    (folder / "5.png").write_text("not a photograph")
    (folder / ".DS_Store").write_text("x")
    (folder / "Thumbs.db").write_text("x")
    return folder


def test_predict_goes_on_after_a_bad_file_and_names_it(
    models: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent, place = tmp_path / "absent.jpg", [f"--models={models}", "--name=small", "--json"]
    assert main(["predict", str(absent), str(mixed), str(tmp_path / "mix*" / "6.*"), *place]) == 1
    out, err = capsys.readouterr()
    names = [json.loads(line)["file"] for line in out.splitlines()]
    assert names == [f"{mixed}/6.png", f"{mixed}/below/1.png", f"{mixed}/6.png"]
    first, second, last = err.splitlines()
    assert first == f"error: {absent}: No such file or directory"
    assert second.startswith(f"error: {mixed}/5.png: ")
    assert "no known image format" in second
    assert last == "error: 2 of 5 files cannot be read as an image"
    assert main(["predict", str(tmp_path / "*.jpg"), *place]) == 1
    assert "*.jpg: No such file or directory" in capsys.readouterr().err


def test_predict_says_that_a_folder_is_empty(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert call(f"predict {tmp_path}/empty", models, capsys) == (
        1,
        "",
        f"error: there are no files in {tmp_path}/empty\n",
    )


def test_predict_writes_csv(models: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mixed / "5.png").unlink()
    assert main(["predict", str(mixed), f"--models={models}", "--name=small", "--csv", "--top-k=2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == [f"{mixed}/6.png", f"{mixed}/below/1.png"]
    assert list(rows[0]) == ["file", "label", "probability", "label_2", "probability_2"]
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)


def test_evaluate_measures_a_folder_and_draws(
    models: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(f"evaluate {digits} --output {tmp_path / 'report'}", models, capsys)
    assert code == 0
    assert out.startswith("1,259 of these 1,797 images were trained on")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["images"] == 1797
    assert f"{report['accuracy']:.4f}" in out
    assert (tmp_path / "report" / "confusion.png").stat().st_size > 1000


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_knows_a_split_again_wherever_the_images_lie(
    models: Path, trained: Trained, digits: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits, tmp_path / "copy")
    report = tmp_path / "report"
    code, out, _ = call(f"evaluate {tmp_path / 'copy'} --split {split} --output {report}", models, capsys)
    assert code == 0
    assert "trained on" not in out
    measured = json.loads((report / "report.json").read_text())
    assert (measured["images"], measured["accuracy"]) == (269, trained.manifest.metrics[split].accuracy)


def test_evaluate_says_where_a_version_keeps_no_account(
    models: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "small" / "3" / "seen.json").unlink()
    code, out, err = call(f"evaluate {digits} --split test", models, capsys)
    assert (code, out) == (1, "")
    assert "version 3 does not know which images were in its test" in err


def test_evaluate_goes_on_without_a_bad_file_and_names_it(
    models: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in "07":
        images = sorted((digits / label).iterdir())[:8]
        (tmp_path / "few" / label).mkdir(parents=True)
        for image in images:
            shutil.copy(image, tmp_path / "few" / label)
    (tmp_path / "few/0/notes.txt").write_text("dear diary")
    (tmp_path / "few/7/cut.png").write_bytes(images[0].read_bytes()[:60])
    (tmp_path / "few/7/gone.png").symlink_to("nowhere.png")
    code, out, _ = call(f"evaluate {tmp_path / 'few'} --output {tmp_path / 'report'}", models, capsys)
    assert code == 0
    assert "unreadable, left out: 3" in out
    assert "  0/notes.txt  not_an_image: the file is in no known image format" in out
    assert "  7/cut.png  corrupt_image: the PNG image cannot be decoded" in out
    assert "  7/gone.png  unreadable_file: it is a link to nowhere.png, which is not there" in out
    assert json.loads((tmp_path / "report/report.json").read_text())["images"] == 16
    for path in (tmp_path / "few").rglob("*.png"):
        path.unlink()
    code, _, err = call(f"evaluate {tmp_path / 'few'}", models, capsys)
    assert code == 1
    assert "none of its files is one: 0/notes.txt  not_an_image: the file is in no known image format" in err


def test_summary_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--json", "--classes", "10", "--image-size", "32"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parameters"]["trainable"] == 25_028_904 - 990 * 2049
    assert summary["output_shapes"]["stage4"] == [1, 1, 2048]


def test_dataset_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "digits", str(tmp_path / "digits")]) == 0
    capsys.readouterr()
    assert main(["dataset", "check", str(tmp_path / "digits"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == {"train": 1259, "val": 269, "test": 269}
    assert main(["dataset", "digits", str(tmp_path / "digits")]) == 1
    assert "new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("train", 2, "train needs the folder of images: resnext train DIR"),
        ("train d --epochs x", 2, "epochs: Input should be a valid integer"),
        ("train d --augment wild", 2, "augment: Input should be 'none'"),
        ("train d --config /nowhere.toml", 1, "--config should name a TOML file, /nowhere.toml is none: No such file"),
        ("train d --config", 2, "--config: expected one argument"),
        ("", 2, "resnext needs a command: train, evaluate, "),
        ("models", 2, "resnext models needs a command: list, show, "),
        ("trian d", 2, "resnext has no command trian; did you mean train?"),
        ("dataset chek d", 2, "resnext dataset has no command chek; did you mean check?"),
        ("models fetch", 2, "resnext models has no command fetch; resnext models --help lists them"),
        ("train d --image_size 32", 2, "resnext train has no flag --image_size; did you mean --image-size?"),
        ("train d --gate.polcy=never", 2, "resnext train has no flag --gate.polcy; did you mean --gate.policy?"),
        ("train d --foo 3", 2, "resnext train has no flag --foo; resnext train --help lists them"),
        ("train d e", 2, "resnext train has one word too many: e"),
        ("train d --epochs", 2, "--epochs: expected one argument"),
        ("export", 2, "resnext export needs RUN"),
        ("train d --architecture.depths 1,0", 2, "--architecture.depths: Input should be greater than or equal to 1"),
        ("train d --architecture.depths x", 2, "--architecture.depths: Input should be a valid integer"),
        ("train d --init best@0", 2, "--init: should be auto, random, live, the number of a version, MODEL, "),
        ("train d --gate 3", 2, "--gate: should be a table of settings, it is 3"),
        ("train d --models README.md", 1, "--models should be a folder that versions can be published into"),
        ("predict a.png --json --csv", 2, "choose --json or --csv, not both"),
        ("jobs list --state nowhere", 1, "there are no jobs: the folder nowhere does not exist"),
        ("train d --resume", 2, "--resume needs --run"),
        ("export nowhere", 1, "there is no run in nowhere"),
        (
            "models list --models nowhere",
            1,
            "there is no model 'resnext50' in nowhere: that folder does not exist. resnext train DIR makes it",
        ),
        (
            "models list --models docs",
            1,
            "there is no model 'resnext50' in docs: it is empty. resnext train DIR makes one",
        ),
        ("models list --name ../up", 1, "there is no model '../up' in models"),
        ("predict a.png --models nowhere", 1, "there is no model 'resnext50' in nowhere"),
        ("models show 9 --models nowhere", 1, "there is no model 'resnext50' in nowhere"),
        ("models prune --models nowhere", 1, "there is no model 'resnext50' in nowhere"),
        ("runs list --folder nowhere", 1, "there are no runs: the folder nowhere does not exist"),
    ],
)
def test_what_is_asked_for_wrongly_is_answered_in_a_line(
    command: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"image_sise = 32", "image_sise: there is no such setting; did you mean image_size?"),
        (b"[gate]\npolcy = 'never'", "gate.polcy: there is no such setting; did you mean policy?"),
        (b"[train]\nepochs = 3", "train: there is no such setting; resnext train --help lists them"),
        (b"run = 3", "run: should be the path of a file or folder, it is 3"),
        (b"# \xff", "none: 'utf-8' codec can't decode byte 0xff"),
        (b"image-size = 5", "image_size: Input should be greater than or equal to 32"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_a_line(
    text: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(text)
    assert main(["train", str(tmp_path), "--config", str(file)]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_reader_that_leaves_is_no_error(models: Path) -> None:
    command = (
        f"{shlex.quote(sys.executable)} -m training models show 1 --name small --models {shlex.quote(str(models))}"
    )
    done = subprocess.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (141, b"")


def test_flags_beat_the_file(tmp_path: Path) -> None:
    for name, shade in (("black", 0), ("white", 255)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("L", (8, 8), abs(shade - k)).save(tmp_path / "data" / name / f"{k}.png")
    file = tmp_path / "run.toml"
    file.write_text(
        "epochs = 7\nseed = 5\nimage_size = 32\naugment = 'tutorial'\n[augmentation]\nrotation = 3\n"
        "[architecture]\ndepths = [1]\ncardinality = 1\nstem_width = 8\n[gate]\ndry_run = true\n"
    )
    flags = ["--config", str(file), "--epochs", "1", "--augmentation.zoom", "0.4", "--no-int8.enabled"]
    assert main(["train", str(tmp_path / "data"), *flags, "--run", str(tmp_path / "run")]) == 0
    config = Run(tmp_path / "run").config()
    assert (config.epochs, config.seed, config.augmentation.rotation, config.augmentation.zoom) == (1, 5, 3, 0.4)
    assert config.augmentation.shear == 0.2
