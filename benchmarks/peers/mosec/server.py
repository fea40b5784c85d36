# mypy: ignore-errors
# (its packages are in an environment of their own)
"""MOSEC: its Rust front, one worker process a core, JPEG bytes as the body."""

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.classifier import BATCH, WORKERS, Classifier


class Inference(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Any) -> Any:
        if BATCH == 1:
            return self.classifier.predict(data)
        return self.classifier.classify([self.classifier.decode(photo) for photo in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Inference, num=WORKERS, max_batch_size=BATCH, max_wait_time=5 if BATCH > 1 else 0, timeout=30)
    server.run()
