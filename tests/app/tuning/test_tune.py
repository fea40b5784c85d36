import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import main
from app.tuning.recommendation import Comparison
from app.tuning.sweep import Outcome, Proposal
from app.tuning.tune import verdict
from tests.app.network import publish
from tests.process import ROOT, environment
from training.contract.repository import ModelRepository

FASTER = Comparison(rate=1.12, worst_rate=1.08, best_rate=1.2, alone=1.02)
COSTLY = Comparison(rate=1.3, worst_rate=1.25, best_rate=1.4, alone=1.9)


QUICK = ["tune", "--seconds", "1", "--clients", "2", "--image-size", "32x24"]


def test_settings_to_paste_with_their_figures() -> None:
    best = Proposal({"RESNEXT_THREADS": "1", "RESNEXT_MAX_BATCH": "4"}, FASTER)
    assert verdict(Outcome([], best, None), 16, []) == [
        "RESNEXT_THREADS=1",
        "RESNEXT_MAX_BATCH=4",
        "# 1.12 times the images/s with 16 clients of what is set now (1.08 to 1.20 in each round), "
        "a lone client waits 1.02 times as long",
    ]


def test_where_the_defaults_are_best_it_says_so() -> None:
    assert verdict(Outcome([], None, None), 16, []) == ["# the defaults are within 3 % of the best: set nothing"]
    assert verdict(Outcome([], None, None), 16, ["threads"]) == [
        "# RESNEXT_THREADS as set, and the defaults of the rest, are within 3 % of the best: set nothing more"
    ]


def test_more_images_at_the_cost_of_a_lone_client_are_a_remark() -> None:
    lines = verdict(Outcome([], None, Proposal({"RESNEXT_THREADS": "1"}, COSTLY)), 8, [])
    assert all(line.startswith("#") for line in lines)
    assert lines[1] == "# only where there are always many clients, RESNEXT_THREADS=1:"
    assert "1.30 times the images/s with 8 clients" in lines[2]
    assert lines[2].endswith("a lone client waits 1.90 times as long")


def test_command_prints_tables_and_a_verdict(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    done = subprocess.run(
        [sys.executable, "-m", "app", *QUICK],
        cwd=ROOT,
        env=environment(models=str(tmp_path), provider="cpu", threads="1", max_batch="1", decode_threads="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "measuring takes about 1 s" in done.stderr
    assert "round 3 of 3" in done.stderr
    assert done.stdout.startswith("resnext50 version 1, CPUExecutionProvider, cores: ")
    assert "\nfp32, threads 1, decode threads 1, max batch 1 " in done.stdout
    assert done.stdout.splitlines()[-1].startswith(
        "# RESNEXT_THREADS, RESNEXT_MAX_BATCH, RESNEXT_DECODE_THREADS as set, and the defaults of the rest, are within"
    )


def test_json_has_every_candidate(
    repository: ModelRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(repository)
    for name, value in {"MODELS": str(tmp_path), "PROVIDER": "cpu", "THREADS": "1", "MAX_BATCH": "1"}.items():
        monkeypatch.setenv(f"RESNEXT_{name}", value)
    assert main([*QUICK, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["model"], printed["version"], printed["clients"], printed["image_size"]) == (
        "resnext50",
        1,
        2,
        [32, 24],
    )
    candidate = printed["stages"][0]["candidates"][0]
    assert (candidate["precision"], candidate["threads"], candidate["max_batch"]) == ("fp32", 1, 1)
    assert len(candidate["images_per_second_of_rounds"]) == 3
    assert candidate["latency_ms"].keys() == candidate["lone_latency_ms"].keys() == {"p50", "p99"}
    assert set(printed["settings"]) <= {"RESNEXT_DECODE_THREADS"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (("RESNEXT_THREADS", "auto"), "resnext tune: no version of 'resnext50' is active"),
        (("RESNEXT_THREADS", "many"), "resnext tune: RESNEXT_THREADS: "),
        (("RESNEXT_PROVIDER", "openvino"), "resnext tune: "),
    ],
)
def test_what_cannot_be_tuned_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: tuple[str, str],
    expected: str,
) -> None:
    monkeypatch.setenv("RESNEXT_MODELS", str(tmp_path))
    monkeypatch.setenv(*setting)
    status = main(QUICK)
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(expected)


@pytest.mark.parametrize(
    "flags", [("--seconds", "0"), ("--clients", "-1"), ("--image-size", "4032"), ("--image-size", "0x9")]
)
def test_flags_that_cannot_work_are_refused(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", *flags])
    assert ended.value.code == 2
    assert f"argument {flags[0]}: should be" in capsys.readouterr().err
