"""The work of every peer on an image, as its user would write it: Pillow, ONNX Runtime, the five best classes.

Runs in the peers' own virtual environments. The BENCH_* variables that `benchmarks.servers` sets name the model and the
number of threads.
"""

import io
import json
import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

PORT = int(os.environ.get("BENCH_PORT", "8000"))
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
THREADS = int(os.environ.get("BENCH_THREADS", "1"))
BATCH = int(os.environ.get("BENCH_BATCH", "1"))
GPU = os.environ.get("BENCH_PROVIDER") == "cuda"


Uint8Image = NDArray[np.uint8]  # [height, width, 3] RGB


def decode(photo: bytes, size: tuple[int, int]) -> Uint8Image:
    """Decodes all pixels, then resizes to width x height."""
    with Image.open(io.BytesIO(photo)) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


class Classifier:
    """The model and its labels, which its file carries."""

    def __init__(self, gpu: bool = GPU) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        settings = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}  # the service's own
        providers: list[Any] = [("CUDAExecutionProvider", settings)] if gpu else []
        providers.append("CPUExecutionProvider")
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=providers)
        if gpu and self.session.get_providers()[0] != "CUDAExecutionProvider":
            raise RuntimeError(f"CUDA was asked for, the session runs on {self.session.get_providers()}")
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.labels: list[str] = json.loads(metadata["labels"])
        size = json.loads(metadata["preprocessing"])
        self.size = (size["width"], size["height"])

    def decode(self, photo: bytes) -> Uint8Image:
        """Decodes a JPEG to the model's size."""
        return decode(photo, self.size)

    def classify(self, images: list[Uint8Image]) -> list[dict[str, Any]]:
        """Returns the five best classes of each, best first. A GPU gets batches of one size: others cost a search."""
        batch = np.zeros((max(BATCH, len(images)), *images[0].shape), np.uint8) if BATCH > 1 else np.stack(images)
        batch[: len(images)] = images
        probabilities = self.session.run(None, {"image": batch})[0]
        return [self._answer(row) for row in probabilities[: len(images)]]

    def predict(self, photo: bytes) -> dict[str, Any]:
        """Returns the answer for a JPEG."""
        return self.classify([self.decode(photo)])[0]

    def _answer(self, row: NDArray[np.float32]) -> dict[str, Any]:
        best = np.argsort(-row)[:5]
        return {"predictions": [{"label": self.labels[i], "index": int(i), "probability": float(row[i])} for i in best]}
