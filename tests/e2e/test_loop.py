"""The closed loop with nothing but HTTP, as the README walks through it; and that no kill loses a job."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process import ROOT, answers, service, until
from tests.sse import Event, parsed
from training.contract.repository import ModelRepository
from training.runs.progress import PHASES, read_progress
from training.runs.run import Run

SMALL = {"depths": [1, 1], "cardinality": 4, "base_width": 4, "stem_width": 16}  # from the same builder
WALK = (ROOT / "README.md").read_text().split("## The whole loop over HTTP")[1].split("\n## ")[0]
BODIES = [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", WALK)]


@pytest.fixture
def models(starter: Path, tmp_path: Path) -> Path:
    """The starter, live as version 1, in a repository of its own."""
    shutil.copytree(starter / "models", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """The README's pictures of clothes, in the README's archive."""
    folder = tmp_path / "fashion"
    for line in re.findall(r"^(?:\.venv/bin/resnext|tar) .*", WALK, re.MULTILINE):
        words = shlex.split(line.replace("data/fashion", str(folder)))
        words = [*(sys.executable, "-m", "training"), *words[1:]] if words[0].endswith("resnext") else words
        made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if "could not be downloaded" in made.stderr and not os.environ.get("REQUIRE_FASHION_MNIST"):
            pytest.skip("there is no Fashion-MNIST: apt-get install dataset-fashion-mnist")
        assert made.returncode == 0, made.stderr
    return folder


def follow(client: httpx.Client, job: str, last: str = "") -> Iterator[Event]:
    """The job's events as `(id, kind, data)`; the stream ends with the job."""
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", f"/train/{job}/events", headers=headers, timeout=120) as response:
        assert response.status_code == 200
        yield from parsed(response.iter_lines())


def train(client: httpx.Client, **config: Any) -> str:  # Any: what JSON holds
    response = client.post("/train", json=config | {"architecture": SMALL})
    assert response.status_code == 202, response.text
    job: str = response.json()["id"]
    assert response.headers["location"] == f"/train/{job}"
    return job


def right(client: httpx.Client, folder: Path) -> float:
    """Share of the test images that /predict names right."""
    images = sorted((folder / "test").glob("*/*.png"))
    correct = 0
    for start in range(0, len(images), 50):
        part = images[start : start + 50]
        body = client.post("/predict", files=[("file", (p.parent.name, p.read_bytes())) for p in part]).json()
        correct += sum(r["predictions"][0]["label"] == r["filename"] for r in body["results"])
    return correct / len(images)


def test_the_readmes_walk(models: Path, fashion: Path) -> None:
    better, worse = BODIES
    with (
        service(models, worker="true") as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200))
        uploaded = client.put("/datasets/fashion", content=fashion.with_suffix(".tar.gz").read_bytes(), timeout=120)
        assert uploaded.status_code == 201
        assert uploaded.json()["report"]["images"] == {"train": 3000, "val": 500, "test": 1000}

        job = train(client, **better)
        seen = list(follow(client, job))
        assert [data["phase"] for _, kind, data in seen if kind == "phase"] == list(PHASES)
        assert [data["state"] for _, kind, data in seen if kind == "state"][-1] == "succeeded"
        assert len([kind for _, kind, _ in seen if kind == "epoch"]) == better["epochs"]
        assert len({id for id, _, _ in seen}) == len(seen)
        until(lambda: client.get("/health").json()["model"]["version"] == 2)
        told = client.get(f"/train/{job}").json()
        assert (told["state"], told["version"]) == ("succeeded", 2)
        assert told["verdict"]["live_version"] == 1
        assert told["verdict"]["accuracy"] > 0.5
        model = client.get("/health").json()["model"]
        served = ModelRepository(models, "resnext50").manifest(2).variants[model["precision"]]  # the faster one here
        assert right(client, fashion) == served.accuracy
        confusion = client.get(f"/train/{job}/report/confusion.png")
        assert confusion.content.startswith(b"\x89PNG")

        rejected = train(client, **worse)
        assert list(follow(client, rejected))[-1][2]["state"] == "rejected"
        told = client.get(f"/train/{rejected}").json()
        assert told["version"] == 3
        assert "it should not be worse than the active version" in told["reason"]
        assert told["verdict"]["comparison"]["outcome"] == "worse"
        assert client.get("/models").json()["live"] == 2

        assert client.post("/models/1/activate").status_code == 200
        (picture,) = re.findall(r"@data/fashion/(\S+)", WALK)
        assert client.post("/predict", content=(fashion / picture).read_bytes()).json()["model"]["version"] == 1
        assert client.get("/health").json()["model"]["version"] == 1


def test_a_kill_of_everything_loses_nothing(starter: Path, models: Path, tmp_path: Path) -> None:
    """Killed in the training of an operator's folder, right after a checkpoint; the next start goes on from there."""
    places = {"datasets": str(tmp_path), "state": str(tmp_path / "state"), "worker": "true"}
    shutil.copytree(starter / "digits", tmp_path / "digits")
    config = {
        "data": "digits", "image_size": 32, "epochs": 4, "batch_size": 16, "checkpoint_every": 10,
        "deterministic": True, "augment": "none",
    }  # fmt: skip
    with (
        service(models, **places) as (process, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        job = train(client, **config)
        run = Run(tmp_path / "state" / "jobs" / job)
        until(lambda: (run.checkpoints / "state.json").exists(), seconds=90)
        (worker,) = client.get("/health").json()["trainer"]["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        process.kill()
        process.wait()
        until(lambda: not run.busy())  # the training process has seen its worker end
    before = json.loads((run.checkpoints / "state.json").read_text())
    assert not run.done("training")
    assert ModelRepository(models, "resnext50").versions() == [1]

    with (
        service(models, **places) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        states = [data["state"] for _, kind, data in follow(client, job) if kind == "state"]
        assert states[-1] == "succeeded"
        until(lambda: client.get("/health").json()["model"]["version"] == 2)
    assert ModelRepository(models, "resnext50").versions() == [1, 2]
    progress = read_progress(run.progress)
    assert [epoch.epoch for epoch in progress.epochs] == [1, 2, 3, 4]
    resumed = [json.loads(line) for line in run.progress.read_text().splitlines()]
    again = max(i for i, event in enumerate(resumed) if event.get("phase") == "training" and event["event"] == "phase")
    first = next(event for event in resumed[again:] if event["event"] == "step")
    assert (first["epoch"], first["step"]) > (before["epochs_done"] + 1, before["steps_done"])
