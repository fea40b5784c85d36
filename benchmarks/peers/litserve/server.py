# mypy: ignore-errors
# (its packages are in an environment of their own)
"""LitServe: a LitAPI in one worker process a core, requests over its ZeroMQ queue (`fast_queue`)."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.peers.classifier import BATCH, PORT, WORKERS, Classifier


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's signature
        self.classifier = Classifier()

    def decode_request(self, request: Request) -> Any:
        return self.classifier.decode(request["file"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, images: Any) -> Any:
        answers = self.classifier.classify(list(images) if images.ndim == 4 else [images])
        return answers if images.ndim == 4 else answers[0]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.005 if BATCH > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
