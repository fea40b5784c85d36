"""Builds the containers, starts them on empty volumes, and tries what docs/containers.md promises.

`make compose-test` runs all steps in a project of its own and removes the project at the end. `make compose-test
STEPS="up starter"` runs only these steps and leaves the project as they left it. COMPOSE is the command, with further
`-f` files where an engine needs them. It needs a container engine, and 20 minutes on two cores.
"""

import sys
import time

from tests.compose.engine import compose, say
from tests.compose.steps.again import again
from tests.compose.steps.build import build
from tests.compose.steps.down import down
from tests.compose.steps.drain import drain
from tests.compose.steps.extras import extras
from tests.compose.steps.gpus import gpus
from tests.compose.steps.hardened import hardened
from tests.compose.steps.monitoring import monitoring
from tests.compose.steps.postgres import postgres
from tests.compose.steps.predict import predict
from tests.compose.steps.predictor import predictor
from tests.compose.steps.secrets import secrets
from tests.compose.steps.starter import starter
from tests.compose.steps.train import train
from tests.compose.steps.up import up

STEPS = (
    build,
    gpus,
    up,
    hardened,
    starter,
    predict,
    train,
    again,
    drain,
    extras,
    predictor,
    secrets,
    monitoring,
    postgres,
)


def main(names: list[str]) -> int:
    """Runs the named steps; without names, all steps and then `down`."""
    steps = [step for step in (*STEPS, down) if step.__name__ in names] if names else STEPS
    if unknown := set(names) - {step.__name__ for step in steps}:
        sys.stderr.write(
            f"there is no step {', '.join(unknown)}; there are: {', '.join(s.__name__ for s in STEPS)}, down\n"
        )
        return 2
    try:
        for step in steps:
            sys.stdout.write(f"{step.__name__}\n")
            since = time.monotonic()
            step()
            say(f"done in {time.monotonic() - since:.0f} s")
    except BaseException:
        sys.stderr.write(compose("ps", "--all") + compose("logs", "--tail", "40"))
        raise
    finally:
        if not names:
            down()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
