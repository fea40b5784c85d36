"""The main job with nothing small about it: ResNeXt-50 trained on real digits by command, served, asked over HTTP."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
import pytest

from tests.process import ROOT, answers, environment, service, until
from training.contract import ModelRepository
from training.train import read_data, recorded_config


def command(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, a run of the starter's config cut to three epochs, and the repository that it published to."""
    work = tmp_path_factory.mktemp("e2e")
    command("dataset", "digits", work / "digits")
    command(
        *("train", work / "digits", "--config=training/starter.toml", "--epochs=3"),
        *(f"--run={work / 'run'}", f"--models={work / 'models'}"),
    )
    return work


@pytest.fixture(scope="module")
def repository(work: Path) -> ModelRepository:
    return ModelRepository(work / "models", "resnext50")


@pytest.fixture(scope="module")
def client(work: Path) -> Iterator[httpx.Client]:
    with service(work / "models", threads="auto") as (_, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client


def test_the_graph_is_resnext50_and_nothing_else(repository: ModelRepository) -> None:
    graph = onnx.load(repository.path(1) / "model.onnx")
    operators = [node.op_type for node in graph.graph.node]
    groups = [
        attribute.i
        for node in graph.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group" and attribute.i != 1
    ]
    assert operators.count("Conv") == 53
    assert groups == [32] * 16
    assert operators.count("Relu") == 49
    assert operators.count("Transpose") == 1
    assert "BatchNormalization" not in operators
    assert not graph.functions
    assert {opset.domain for opset in graph.opset_import} <= {"", "ai.onnx.ml"}
    assert repository.manifest(1).parameters["trainable"] == 25_028_904 - 990 * 2049


def test_every_test_image_over_http_gives_the_accuracy_that_training_reported(
    work: Path, repository: ModelRepository, client: httpx.Client
) -> None:
    names = held_out(work)
    right = 0
    for start in range(0, len(names), 16):
        chunk = names[start : start + 16]
        files = [("file", (name, (work / "digits" / name).read_bytes())) for name in chunk]
        response = client.post("/predict?top_k=1", files=files)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["model"] == {"name": "resnext50", "version": 1}
        assert [result["filename"] for result in body["results"]] == chunk
        right += sum(r["predictions"][0]["label"] == r["filename"].split("/")[0] for r in body["results"])
    metrics = repository.manifest(1).metrics["test"]
    assert len(names) == metrics.images == 269
    assert right / len(names) == metrics.accuracy
    assert metrics.accuracy > 0.2  # it has learned something: guessing gives 0.1


def test_one_image_by_hand(work: Path, client: httpx.Client) -> None:
    image = next((work / "digits" / "3").iterdir()).read_bytes()
    part = client.post("/predict", files={"file": image}).json()["results"][0]["predictions"]
    raw = client.post("/predict", content=image).json()["results"][0]["predictions"]
    assert part == raw
    assert len(part) == 5
    everything = client.post("/predict?top_k=10", content=image).json()["results"][0]["predictions"]
    assert sum(p["probability"] for p in everything) == pytest.approx(1, abs=1e-4)


def test_a_new_version_goes_live_under_load_without_a_failed_request(
    work: Path, repository: ModelRepository, client: httpx.Client
) -> None:
    image = next((work / "digits" / "5").iterdir()).read_bytes()
    expected = client.post("/predict", content=image).json()["results"]
    seen: list[tuple[int, int, bool]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            response = client.post("/predict", content=image)
            body = response.json()
            seen.append((response.status_code, body["model"]["version"], body["results"] == expected))

    loaders = [threading.Thread(target=load) for _ in range(2)]
    for loader in loaders:
        loader.start()
    try:
        command("export", work / "run", f"--models={work / 'models'}")  # the same weights, as version 2
        until(lambda: client.get("/health").json()["model"]["version"] == 2)
        until(lambda: seen[-1][1] == 2)
    finally:
        stop.set()
        for loader in loaders:
            loader.join()
    assert {status for status, _, _ in seen} == {200}
    assert {version for _, version, _ in seen} == {1, 2}
    assert all(same for _, _, same in seen)
    assert repository.active() == 2


def held_out(work: Path) -> list[str]:
    """Names of the test split's images: those the training kept out, by its own record."""
    _, splits = read_data(recorded_config(work / "run"), work)
    return [sample.name for sample in splits["test"].samples]
