# mypy: ignore-errors
# (its packages are in an environment of their own)
"""BentoML: a service in one process, an image as multipart input, one run a thread.

More processes (`workers`) were tried: kept-alive connections all stay with the first process, at half the speed.
There is no adaptive batching, since its requests would have to be lists.
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.classifier import WORKERS, Classifier


@bentoml.service(workers=1, threads=WORKERS, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api
    def predict(self, file: Path) -> dict[str, Any]:
        return self.classifier.predict(file.read_bytes())
