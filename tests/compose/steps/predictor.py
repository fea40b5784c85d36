import functools
import json

import httpx

from tests import process
from tests.compose.engine import PROJECT, docker, inspect
from tests.compose.service import answered, answers, page
from tests.process import until


def predictor() -> None:
    """The service runs as KServe would run it by the manifest of docs/clients.md, with read-only models."""
    spec = page("clients.md", "apiVersion: serving.kserve.io")["spec"]["predictor"]
    (asked_for,) = spec["containers"]
    settings = {variable["name"]: variable["value"] for variable in asked_for["env"]}
    (port,) = (port["containerPort"] for port in asked_for["ports"])
    limits = asked_for["resources"]["limits"]
    folders = {mount["name"]: mount["mountPath"] for mount in asked_for["volumeMounts"]}
    name = f"{PROJECT}-predictor"
    run = ["run", "--detach", "--name", name, f"--publish=127.0.0.1:0:{port}", "--cap-drop=ALL", "--read-only"]
    run += [f"--cpus={limits['cpu']}", f"--memory={limits['memory']}", f"--volume={PROJECT}_models:/mnt/models:ro"]
    run += [f"--tmpfs={folders[volume['name']]}:mode=1777" for volume in spec["volumes"]] + ["--tmpfs=/tmp:mode=1777"]
    before = answers()
    docker(*run, *(f"--env={key}={value}" for key, value in settings.items()), inspect("api")["Config"]["Image"])
    try:
        base = "http://" + docker("port", name, str(port))
        for probe in ("livenessProbe", "readinessProbe"):
            until(functools.partial(process.answers, base + asked_for[probe]["httpGet"]["path"], 200), 60)
        assert answers(base) == before
        assert httpx.get(f"{base}/v2/models/resnext50/ready").status_code == 200
        assert (
            httpx.post(f"{base}/models/1/activate").status_code == 403
        )  # it has no keys, and listens on all addresses
        # Kubernetes sends SIGTERM, and SIGKILL 30 s later
        answer = answered(base, lambda: docker("stop", "--time", "30", name))
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        (state,) = json.loads(docker("inspect", name, "--format", "[{{json .State}}]"))
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    finally:
        docker("rm", "--force", name)
