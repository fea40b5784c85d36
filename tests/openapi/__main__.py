"""Sends what the OpenAPI document allows, and what it does not, to a real service, and checks each answer against it.

`python -m tests.openapi SCHEMATHESIS` takes the path of schemathesis' command. It tries the examples, the edges
of each parameter, and 200 random cases an operation, with all checks. The service has a model with two versions and
two datasets; no worker runs, so jobs stay in the queue. Further arguments go to schemathesis.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.app.network import publish, repository_at
from tests.chaos.archives import SANE, zipped
from tests.chaos.harness import target

CASES = 200  # an operation


def main(command: str, *more: str) -> int:
    """Returns schemathesis' exit status."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "service" / "models"
        with target(Path(folder) / "service") as service:
            for seed in (1, 2):
                publish(repository_at(models), seed, activate=False)
            with service.client() as client:
                for name in ("photos", "flowers"):
                    client.put(f"/datasets/{name}", content=zipped(SANE)).raise_for_status()
            return subprocess.run(
                [
                    *[command, "run", f"{service.url}/openapi.json", "--checks", "all"],
                    *["--max-examples", str(CASES), "--seed", "1", "--continue-on-failure", *more],
                ],
                cwd=folder,
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
