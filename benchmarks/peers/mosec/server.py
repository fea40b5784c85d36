# mypy: ignore-errors
# (its packages are in an environment of their own)
"""MOSEC: its Rust front, JPEG bytes as the body; a worker process a core, on a GPU to decode for one that computes."""

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.classifier import BATCH, GPU, THREADS, WORKERS, Classifier, decode


class Decoding(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.size = Classifier(gpu=False).size

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        return decode(data, self.size)


class Inference(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Any) -> Any:
        return self.classifier.classify(data) if GPU else self.classifier.predict(data)


if __name__ == "__main__":
    server = Server()
    if GPU:
        server.append_worker(Decoding, num=THREADS)
        server.append_worker(Inference, max_batch_size=BATCH, max_wait_time=5, timeout=30)
    else:
        server.append_worker(Inference, num=WORKERS, timeout=30)
    server.run()
