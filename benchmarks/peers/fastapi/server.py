"""FastAPI by hand: a `def` route, which runs in a thread, around `session.run`. No batching.

Two threads at a time, set as Starlette's documentation says: with its default of 40, 32 clients get a quarter less.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, File

from benchmarks.peers.classifier import PORT, WORKERS, Classifier

THREADS = 2  # one decodes while the other computes


@asynccontextmanager
async def few_threads(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(lifespan=few_threads)
classifier = Classifier()


@app.post("/predict")
def predict(file: Annotated[bytes, File()]) -> dict[str, Any]:
    return classifier.predict(file)


if __name__ == "__main__":
    uvicorn.run("benchmarks.peers.fastapi.server:app", port=PORT, workers=WORKERS, access_log=False)
