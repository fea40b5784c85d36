# mypy: ignore-errors
# (its packages are in an environment of their own)
"""Ray Serve: one replica a core, JPEG bytes as the body, decode and inference in a thread of the replica."""

import asyncio
import signal
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.classifier import BATCH, PORT, WORKERS, Classifier


@serve.deployment(num_replicas=WORKERS, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64)
class Service:
    def __init__(self) -> None:
        self.classifier = Classifier()

    async def __call__(self, request: Request) -> dict[str, Any]:
        photo = await request.body()
        if BATCH == 1:
            return await asyncio.to_thread(self.classifier.predict, photo)
        return await self.batched(await asyncio.to_thread(self.classifier.decode, photo))

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.005)
    async def batched(self, images: list[Any]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.classifier.classify, images)


if __name__ == "__main__":
    ray.init(num_cpus=max(WORKERS, 2), include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Service.bind(), route_prefix="/predict")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    ray.shutdown()
