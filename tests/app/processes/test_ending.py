import contextlib
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np

from app.processes.ending import HUNG
from tests.app.network import SIZE, encoded, network, publish
from tests.process import ROOT, answers, service, until
from training.contract.repository import ModelRepository

WHITE = encoded(np.full((SIZE, SIZE, 3), 255, np.uint8))

STUCK = """
import signal, threading
from app.processes.drain import Drain
from app.processes.ending import Ending
from app.watch import Watch

signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))
watch = Watch()
watch.begin("run", "a run", -10)
Ending(Drain(), watch, 0.1, lambda reason: print("stuck:", reason, flush=True), last_chance=0).start()
while True:
    threading.Event().wait(1)
"""


def test_a_run_that_goes_on_after_the_drain_does_not_keep_the_process(
    repository: ModelRepository, tmp_path: Path
) -> None:
    publish(repository, model=network(endless=True))
    with service(tmp_path, run_timeout="3600", drain_timeout="1") as (process, port):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health/ready", 200))

        def ask() -> None:
            with contextlib.suppress(httpx.TransportError):
                httpx.post(f"{url}/predict", content=WHITE, timeout=60)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: httpx.get(f"{url}/health").json()["queue"]["depth"] == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == HUNG
        asking.join()
        _, log = process.communicate()
    assert "the process has not ended in 4 s and is ended, with status 4; under way: a run of 1 images for" in log


def test_a_process_that_is_stuck_says_so_and_ends() -> None:
    """Its handler of SIGTERM does not end it."""
    process = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert process.returncode == HUNG
    said = process.stdout.splitlines()
    assert said[0].startswith("stuck: a run has not ended in ")
    assert said[1:] == ["SIGTERM"]
    assert "the process ends, so that it is started again: a run has not ended" in process.stderr
