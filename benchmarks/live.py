"""From photos to a live model: the seconds from `POST /train` to the first right answer of the version that it made.

Starts the service with its worker, uploads 200 photos of 2 MB in four classes, trains a head on ResNeXt-50 at 224
pixels, and asks /predict for a photo that was not uploaded until the new version names it rightly. Three times: with
nothing made before; with other photos on the same weights; and with twenty photos more than that.

Weights: those in `--weights FILE.safetensors` (a published ResNeXt-50 (32x4d) with ImageNet classes), else those of an
untrained network. The times are the same: the network computes the same for other numbers.
"""

import argparse
import io
import json
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import skimage.data
from PIL import Image

from benchmarks.fashion import service
from benchmarks.machine import machine
from training.weights.importing import description_of, import_file
from training.weights.presets import imagenet_labels, preset_named
from training.weights.store import WeightsStore

CLASSES = {"astronaut": "astronaut", "cat": "chelsea", "coffee": "coffee", "rocket": "rocket"}  # scikit-image's photos
SIZE = (2400, 1800)
EACH = 50  # photos of a class
NAME = "weights"


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="file of published weights, .safetensors")
    parser.add_argument("--rounds", type=int, default=3, help="how often, with nothing made before each")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        weights = options.weights or untrained(Path(temporary) / "untrained.safetensors")
        for number in range(options.rounds):
            folder = Path(temporary) / str(number)
            store = WeightsStore(folder / "weights")
            import_file(store, weights, NAME, description_of(preset_named("tv_in1k"), origin=weights.name))
            for title, seconds, size in measure(folder, seed=number):
                rows.setdefault(title, []).append(seconds)
                sys.stderr.write(f"{title}: {seconds:.1f} s, photos of {size / 1e6:.1f} MB\n")
            shutil.rmtree(folder)
    lines = ["| | seconds from `POST /train` to the first right answer, median (all) |", "|---|---|"]
    lines += [
        f"| {title} | {statistics.median(times):.0f} ({', '.join(f'{one:.0f}' for one in times)}) |"
        for title, times in rows.items()
    ]
    sys.stdout.write("\n".join(lines) + f"\n\n{machine()}\n")


def measure(folder: Path, seed: int) -> Iterator[tuple[str, float, float]]:
    """Yields for each training what is new in it, its seconds, and the mean size of its photos in bytes."""
    with service(folder) as client:
        first, other = (photos(EACH, seed=2 * seed + i) for i in range(2))
        unseen = photos(1, seed=1000 + seed)
        more = other | photos(EACH // 10, seed=2000 + seed)  # five of each class
        steps = {
            "200 photos, nothing made before": first,
            "200 other photos, the same weights": other,
            "these and 20 more": more,
        }
        for number, (title, pictures) in enumerate(steps.items()):
            name = f"photos-{number}"
            upload(client, name, pictures)
            yield title, train(client, name, unseen), statistics.mean(map(len, pictures.values()))


def photos(each: int, seed: int) -> dict[str, bytes]:
    """Returns JPEGs by `label/name`: parts of four photographs with a sensor's noise, about 2 MB each."""
    random = np.random.default_rng(seed)
    found = {}
    for label, photo in CLASSES.items():
        whole = Image.fromarray(getattr(skimage.data, photo)())
        for i in range(each):
            side = int(min(whole.size) * random.uniform(0.6, 0.95))
            left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
            part = whole.crop((left, top, left + side, top + side)).resize(SIZE, Image.Resampling.BICUBIC)
            noise = random.integers(-24, 25, (SIZE[1], SIZE[0], 3), np.int8)
            pixels = np.clip(np.asarray(part, np.int16) + noise, 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=92)
            found[f"{label}/{seed}-{i:03}.jpg"] = file.getvalue()
    return found


def upload(client: httpx.Client, name: str, pictures: dict[str, bytes]) -> None:
    """Uploads photos as one tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in pictures.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    client.put(f"/datasets/{name}", content=buffer.getvalue()).raise_for_status()


def train(client: httpx.Client, data: str, unseen: dict[str, bytes]) -> float:
    """Returns the seconds from the request to the first right answer of the version that it makes."""
    begun = time.monotonic()
    wanted = {"data": data, "init": f"weights:{NAME}", "method": "head", "gate": {"policy": "always"}}
    answer = client.post("/train", json=wanted)
    answer.raise_for_status()
    id = answer.json()["id"]
    job: dict[str, Any] = answer.json()  # Any: JSON
    while job["version"] is None:
        time.sleep(0.1)
        job = client.get(f"/train/{id}").raise_for_status().json()
        if job["state"] in ("failed", "rejected", "cancelled"):
            raise SystemExit(json.dumps(job, indent=1))
    while True:
        for path, picture in unseen.items():
            reply = client.post("/predict", files={"file": (path, picture)})
            if reply.status_code == 200 and reply.json()["model"]["version"] == job["version"]:
                best = reply.json()["results"][0]["predictions"][0]["label"]
                if best == path.partition("/")[0]:
                    return time.monotonic() - begun
        time.sleep(0.1)
        if time.monotonic() - begun > 600:
            raise SystemExit(f"no right answer after 600 s: {job}")


def untrained(path: Path) -> Path:
    """Writes the weights of an untrained ResNeXt-50 (32x4d) with ImageNet's classes."""
    from training.contract.architecture import Architecture
    from training.contract.manifest import Preprocessing
    from training.network import resnext
    from training.network.published_weights import tensors_of
    from training.weights.tensors import write_tensors

    preprocessing = Preprocessing(height=224, width=224)
    write_tensors(path, tensors_of(resnext.build(Architecture(), preprocessing, len(imagenet_labels()))))
    return path


if __name__ == "__main__":
    main()
