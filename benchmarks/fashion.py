"""The result of the whole loop on a known problem: Fashion-MNIST, over HTTP only.

Starts the service with its worker, uploads all 70,000 images (55,000 / 5,000 / 10,000), posts the training below, waits
for its version to go live, then asks /predict for each of the 10,000 test images and counts. The published
results beside it are those of the dataset's own README (github.com/zalandoresearch/fashion-mnist).
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import machine
from training.datasets.public import make_fashion_mnist

CONFIG = {
    "data": "fashion-mnist",
    "method": "scratch",
    "recipe": "modern",
    "image_size": 64,
    "epochs": 30,
    "batch_size": 128,
    "augment": "none",
    "augmentation": {
        "horizontal_flip": True,
        "width_shift": 0.06,
        "height_shift": 0.06,
        "erasing": 0.25,
        "cutmix": 0.25,
    },
    "checkpoint_every": 200,
    "precision": "mixed_bfloat16",
}
PUBLISHED = {
    "WRN40-4, 8.9M parameters": 0.967,
    "DenseNet-BC, 768K parameters": 0.954,
    "MobileNet": 0.950,
    "ResNet18": 0.949,
    "Google AutoML, 24 compute hours": 0.939,
    "GoogleNet": 0.937,
    "VGG16, 26M parameters": 0.935,
    "HOG + SVM": 0.926,
    "2 Conv + pooling (TensorFlow's tutorial)": 0.916,
    "XGBoost": 0.898,
    "people without expertise in fashion": 0.835,
}
IMAGES_A_REQUEST = 50


def main() -> None:
    """Prints a Markdown report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, help="folder with the four idx.gz files, if Debian's package is not installed"
    )
    parser.add_argument("--folder", type=Path, help="keep models and jobs here, and go on from what is there")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="change the training's config")
    options = parser.parse_args()
    config = CONFIG | {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        images = folder / "images"
        if not images.exists():
            make_fashion_mnist(images, options.source, {})
        with service(folder) as client:
            if client.get("/datasets/fashion-mnist").status_code == 404:
                upload(client, images)
            job = train(client, config)
            served = ask(client, images / "test")
    sys.stdout.write(report(config, job, *served))


@contextmanager
def service(folder: Path) -> Iterator[httpx.Client]:
    """Runs the service as its operator does, with a worker."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {name: str(folder / name.lower()) for name in ("MODELS", "DATASETS", "STATE", "WEIGHTS", "CACHE")}
    settings = {**places, "PORT": str(port), "WORKER": "true"}
    environment = {**os.environ, **{f"RESNEXT_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "app"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_for(lambda: answers(client, "/health/live"))
            yield client
    finally:
        process.terminate()
        process.wait()


def upload(client: httpx.Client, images: Path) -> None:
    """Uploads all three splits as one tar."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(images, ".")
        file.seek(0)
        answer = client.put("/datasets/fashion-mnist", content=iter(lambda: file.read(1024**2), b""))
    answer.raise_for_status()


def train(client: httpx.Client, config: dict[str, Any]) -> dict[str, Any]:
    """Posts the job, once for this config, watches it to its end and returns it."""
    key = {"Idempotency-Key": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}
    while (answer := client.post("/train", json=config, headers=key)).status_code == 503:
        time.sleep(5)  # on a busy machine the jobs' database takes a while to be opened
    answer.raise_for_status()
    job: dict[str, Any]  # Any: JSON
    id, job = answer.json()["id"], answer.json()
    while job["state"] in ("queued", "running"):
        time.sleep(5)
        if (found := client.get(f"/train/{id}")).is_success:  # on a busy machine the database may not answer in time
            job = found.json()
        if step := job["progress"]["step"]:
            rate, left = step["images_per_second"], step["eta_seconds"] / 60
            sys.stderr.write(f"\r{job['phase']} epoch {step['epoch']:.0f} {rate:.0f} images/s {left:.0f} min ")
    if job["state"] != "succeeded":
        sys.exit(f"the job is {job['state']}: {job['reason']}")
    wait_for(lambda: answers(client, "/health/ready"))
    wait_for(lambda: client.get("/health").json()["model"]["version"] == job["version"])
    return job


def ask(client: httpx.Client, test: Path) -> tuple[float, float]:
    """Returns the share of the test images that /predict names right, and images a second over two connections."""
    paths = sorted(test.glob("*/*.png"))
    parts = [paths[i : i + IMAGES_A_REQUEST] for i in range(0, len(paths), IMAGES_A_REQUEST)]

    def right(part: list[Path]) -> int:
        files = [("file", (path.parent.name, path.read_bytes())) for path in part]
        results = client.post("/predict?top_k=1", files=files).raise_for_status().json()["results"]
        return sum(result["predictions"][0]["label"] == result["filename"] for result in results)

    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        correct = sum(pool.map(right, parts))
    return correct / len(paths), len(paths) / (time.perf_counter() - start)


def report(config: dict[str, Any], job: dict[str, Any], accuracy: float, rate: float) -> str:
    """Returns Markdown: ours among the published results, settings, time by phase, machine."""
    rows = {**PUBLISHED, "**ResNeXt-50 (32x4d), this loop**": accuracy}
    table = [f"| {name} | {value:.4f} |" for name, value in sorted(rows.items(), key=lambda row: -row[1])]
    phases = ", ".join(f"{phase['name']} {phase['seconds']:.0f} s" for phase in job["progress"]["phases"])
    return "\n".join(
        [
            "| | accuracy on the 10,000 test images |",
            "|---|---|",
            *table,
            "",
            f"Over HTTP {accuracy:.4f}, {rate:.0f} images/s; the manifest says {job['verdict']['accuracy']:.4f}.",
            f"{phases}.",
            f"Settings: `{json.dumps(config)}`.",
            "",
            machine(),
            "",
        ]
    )


def answers(client: httpx.Client, path: str) -> bool:
    """Whether the service answers with success."""
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Asks again and again without a limit: the person at the terminal decides when to give up."""
    while not condition():
        time.sleep(0.2)


if __name__ == "__main__":
    main()
