"""The main job with nothing small about it: ResNeXt-50 trained on real digits by command, served, asked over HTTP."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
import pytest

from tests.process import ROOT, answers, service, until
from training.contract.repository import ModelRepository
from training.datasets.loading import read_samples
from training.runs.run import Run


@pytest.fixture(scope="module")
def repository(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """Yields a service for these tests alone, with the starter live as version 1."""
    root = tmp_path_factory.mktemp("digits") / "models"
    shutil.copytree(starter / "models", root)
    return ModelRepository(root, "resnext50")


@pytest.fixture(scope="module")
def client(repository: ModelRepository) -> Iterator[httpx.Client]:
    with service(repository.folder.parent, threads="auto") as (_, port):
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
    starter: Path, repository: ModelRepository, client: httpx.Client
) -> None:
    names = held_out(starter)
    right = 0
    for start in range(0, len(names), 16):
        chunk = names[start : start + 16]
        files = [("file", (name, (starter / "digits" / name).read_bytes())) for name in chunk]
        response = client.post("/predict?top_k=1", files=files)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["model"] == {"name": "resnext50", "version": 1}
        assert [result["filename"] for result in body["results"]] == chunk
        right += sum(r["predictions"][0]["label"] == r["filename"].split("/")[0] for r in body["results"])
    manifest = repository.manifest(1)
    served = manifest.variants[client.get("/health").json()["model"]["precision"]]  # the faster one here
    assert len(names) == manifest.metrics["test"].images == 269
    assert right / len(names) == served.accuracy
    assert served.accuracy > 0.2  # it has learned something: guessing gives 0.1


def test_one_image_by_hand(starter: Path, client: httpx.Client) -> None:
    (picture,) = re.findall(r"@data/digits/(\S+)", (ROOT / "README.md").read_text())
    image = (starter / "digits" / picture).read_bytes()
    part = client.post("/predict", files={"file": image}).json()["results"][0]["predictions"]
    raw = client.post("/predict", content=image).json()["results"][0]["predictions"]
    assert part == raw
    assert len(part) == 5
    everything = client.post("/predict?top_k=10", content=image).json()["results"][0]["predictions"]
    assert sum(p["probability"] for p in everything) == pytest.approx(1, abs=1e-4)


def test_a_new_version_goes_live_under_load_without_a_failed_request(
    starter: Path, repository: ModelRepository, client: httpx.Client
) -> None:
    image = next((starter / "digits" / "5").iterdir()).read_bytes()
    expected = client.post("/predict", content=image).json()["results"][0]["predictions"][0]["label"]
    seen: list[tuple[int, int, bool]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            response = client.post("/predict", content=image)
            body = response.json()
            # its label: which precision is the faster one is measured anew for version 2
            same = body["results"][0]["predictions"][0]["label"] == expected
            seen.append((response.status_code, body["model"]["version"], same))

    loaders = [threading.Thread(target=load) for _ in range(2)]
    for loader in loaders:
        loader.start()
    try:
        publish_again(repository)
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


def publish_again(repository: ModelRepository) -> None:
    """The same package as version 2."""
    first = repository.manifest(1)
    with repository.staging() as staged:
        shutil.copytree(repository.path(1), staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        repository.publish(staged, first.model_copy(update={"run": "again"}))
    repository.activate(2)


def held_out(starter: Path) -> list[str]:
    """Names of the test split's images: those the training kept out, by its own record."""
    samples = read_samples(Run(starter / "run").samples)
    return [sample.name for sample in samples if sample.split == "test"]
