"""Requests to the service in its containers, and what the steps ask of it."""

import contextlib
import io
import re
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import yaml

from tests.compose.engine import Json, url, within
from tests.process import ROOT, until

SMALL = {"image_size": 32, "epochs": 1, "augment": "none", "architecture": {"depths": [1, 1]}, "tensorboard": False}
KEY = "a-key-of-the-test"


def get(path: str, **headers: str) -> Json:
    answer = httpx.get(url() + path, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ready(base: str | None = None) -> bool:
    try:
        return httpx.get((base or url()) + "/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def reached(id: str, epoch: int) -> int:
    """Waits until a job has ended `epoch` epochs, and returns how many it has by then."""
    until(lambda: epochs(id) >= epoch, 600)
    return epochs(id)


def epochs(id: str) -> int:
    return len(get(f"/train/{id}")["progress"]["epochs"])


def at_work(id: str) -> bool:
    """Whether the api, from its own container, sees the trainer alive and at work on this job."""
    trainer = get("/health")["trainer"]
    return trainer["running"] == [id] and [worker["job"] for worker in trainer["workers"] if worker["alive"]] == [id]


def over(id: str) -> bool:
    answer = httpx.get(f"{url()}/train/{id}", timeout=30)
    if answer.status_code == 503:  # its database restarts
        return False
    return answer.json()["state"] in ("succeeded", "rejected", "failed", "cancelled")


def submitted(dataset: str, **headers: str) -> str:
    wanted = {"data": dataset, **SMALL, "gate": {"policy": "never"}}
    answer = httpx.post(url() + "/train", json=wanted, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def images() -> dict[str, bytes]:
    """Returns five images of each digit, with names like `3/0003.png`."""
    script = "cd /data/datasets/digits/1/images; for digit in *; do ls $digit/* | head -5; done"
    names = within("api", "sh", "-c", script).decode().split()
    packed = io.BytesIO(within("api", "tar", "-C", "/data/datasets/digits/1/images", "-cf", "-", *names))
    with tarfile.open(fileobj=packed) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


def answers(base: str | None = None) -> dict[str, str]:
    """Returns the most likely class of each of the images."""
    files = [("file", (name, image)) for name, image in images().items()]
    answer = httpx.post((base or url()) + "/predict", files=files, timeout=30)
    assert answer.status_code == 200, answer.text
    return {result["filename"]: result["predictions"][0]["label"] for result in answer.json()["results"]}


def answered(base: str, stop: Callable[[], object]) -> bytes:
    """Sends the rest of an upload only once `stop` has taken effect, and returns the whole answer."""
    image = next(iter(images().values()))
    address = base.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
        connection.sendall(head.encode() + image[:10])
        assert ready(base)  # by now the event loop has seen the first bytes
        stopping = threading.Thread(target=stop)
        stopping.start()
        until(lambda: not ready(base), 20)
        connection.sendall(image[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    stopping.join()
    return answer


@contextlib.contextmanager
def keyed() -> Iterator[dict[str, str]]:
    """Yields the variables with which compose starts the api with a key."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (file := Path(folder, "keys")).write_text(f"{KEY}\n")
        yield {"RESNEXT_API_KEYS_FILE": str(file)}


def page(name: str, begins: str) -> Json:
    """Returns the one block of YAML in a page of the documentation that begins with `begins`."""
    text = (ROOT / "docs" / name).read_text()
    (found,) = re.findall(rf"^```yaml\n({re.escape(begins)}.*?)^```", text, re.DOTALL | re.MULTILINE)
    return dict(yaml.safe_load(found))
