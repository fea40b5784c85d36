"""The containers for real: builds them, brings them up on empty volumes, and tries what docs/containers.md promises.

`make compose-test` runs every step, in a project of its own that goes away at the end. `make compose-test STEPS="up
starter"` runs these alone and leaves the project as it is then. COMPOSE is the command, with more `-f` files where an
engine needs them. Needs an engine, and 20 minutes on two cores.
"""

import contextlib
import functools
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from tritonclient import grpc as triton

from tests import process
from tests.dashboard import queries
from tests.process import ROOT, until

PROJECT = "resnext-test"
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker compose")), "--project-name", PROJECT]
FILES = (
    () if {"-f", "--file"} & set(COMPOSE) else ("--file", "docker-compose.yml")
)  # what another --file goes on top of
PORTS = {"PORT": "0", "PROMETHEUS_PORT": "0", "GRAFANA_PORT": "0"}  # whichever are free
USER = "10001"
KEY = "a-key-of-the-test"
SMALL = {"image_size": 32, "epochs": 1, "augment": "none", "architecture": {"depths": [1, 1]}, "tensorboard": False}
CLASSES = {"0": "零", "1": "一", "2": "二"}
# an OpenTelemetry collector, as far as it goes: prints where the first spans were sent, and them
COLLECTOR = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        spans = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        sys.stdout.buffer.write(self.path.encode() + spans)

http.server.HTTPServer(("", 4318), Handler).handle_request()
"""

Json = dict[str, Any]  # Any: JSON


def compose(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [*COMPOSE, *arguments], cwd=ROOT, env=os.environ | PORTS | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout


def container(service: str) -> str:
    return compose("ps", "--all", "--quiet", service).strip()


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def inspect(service: str) -> Json:
    (found,) = json.loads(docker("inspect", container(service)))
    return dict(found)


def page(name: str, begins: str) -> Json:
    """The block of YAML of a page of the documentation that begins so."""
    text = (ROOT / "docs" / name).read_text()
    (found,) = re.findall(rf"^```yaml\n({re.escape(begins)}.*?)^```", text, re.DOTALL | re.MULTILINE)
    return dict(yaml.safe_load(found))


@contextlib.contextmanager
def layered(changes: Json) -> Iterator[tuple[str, ...]]:
    """The files that say what a docker-compose.override.yml with these changes would."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(changes, file)
        file.flush()
        yield (*FILES, "--file", file.name)


def healthy(service: str) -> bool:
    state = inspect(service)["State"]
    return bool(state["Running"] and state["Health"]["Status"] == "healthy")


def within(service: str, *command: str) -> bytes:
    """What a command prints in a service's container."""
    return subprocess.run([*COMPOSE, "exec", "-T", service, *command], cwd=ROOT, capture_output=True, check=True).stdout


def fails(service: str, *command: str) -> str:
    """What it says as it fails."""
    done = subprocess.run([*COMPOSE, "exec", "-T", service, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0, command
    return done.stderr + done.stdout


def url(service: str = "api", port: int = 8000) -> str:
    return "http://" + compose("port", service, str(port)).strip()


def get(path: str, **headers: str) -> Json:
    answer = httpx.get(url() + path, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ready(base: str | None = None) -> bool:
    try:
        return httpx.get((base or url()) + "/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def reached(id: str, epoch: int) -> int:
    """Waits until a job has ended so many epochs; how many it has then."""
    until(lambda: epochs(id) >= epoch, 600)
    return epochs(id)


def epochs(id: str) -> int:
    return len(get(f"/train/{id}")["progress"]["epochs"])


def at_work(id: str) -> bool:
    """Whether the trainer is alive, as the api sees it from its own container, and has the job in hand."""
    trainer = get("/health")["trainer"]
    return trainer["running"] == [id] and [worker["job"] for worker in trainer["workers"] if worker["alive"]] == [id]


def over(id: str) -> bool:
    answer = httpx.get(f"{url()}/train/{id}", timeout=30)
    if answer.status_code == 503:  # its database is restarted
        return False
    return answer.json()["state"] in ("succeeded", "rejected", "failed", "cancelled")


def images() -> dict[str, bytes]:
    """Five of each digit, as `3/0003.png`."""
    script = "cd /data/datasets/digits/1/images; for digit in *; do ls $digit/* | head -5; done"
    names = within("api", "sh", "-c", script).decode().split()
    packed = io.BytesIO(within("api", "tar", "-C", "/data/datasets/digits/1/images", "-cf", "-", *names))
    with tarfile.open(fileobj=packed) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


def answers(base: str | None = None) -> dict[str, str]:
    """The likeliest class of each of them."""
    files = [("file", (name, image)) for name, image in images().items()]
    answer = httpx.post((base or url()) + "/predict", files=files, timeout=30)
    assert answer.status_code == 200, answer.text
    return {result["filename"]: result["predictions"][0]["label"] for result in answer.json()["results"]}


def build() -> None:
    compose("--profile", "*", "build")
    say(docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}", "resnext-*:cpu"))


def gpus() -> None:
    """What Compose makes of docker-compose.gpu.yml: images with CUDA, one GPU each. To read it takes none."""
    merged = json.loads(compose(*FILES, "--file", "docker-compose.gpu.yml", "config", "--format", "json", API_GPU="1"))
    for name, gpu in (("api", "1"), ("trainer", "0")):
        service = merged["services"][name]
        assert service["build"]["args"] == {"ACCELERATOR": "cuda"}
        assert service["image"].endswith(":cuda")
        assert "memory" in service["deploy"]["resources"]["limits"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", [gpu], ["gpu"])
    assert merged["services"]["api"]["environment"]["RESNEXT_PROVIDER"] == "cuda"


def up() -> None:
    """On empty volumes: healthy from the start, no model yet, and the starter is under way."""
    compose("up", "--detach", "--no-build")
    until(lambda: healthy("api") and healthy("trainer"), 120)
    assert httpx.get(url() + "/health/ready").status_code == 503
    assert get("/health")["status"] == "no_model"
    until(lambda: get("/train")["total"] == 1, 60)
    (job,) = get("/train")["jobs"]
    assert (job["id"][:4], job["dataset"]["name"], job["config"]["name"]) == ("key-", "digits", "resnext50")
    until(lambda: at_work(job["id"]), 60)
    (worker,) = get("/health")["trainer"]["workers"]
    assert (worker["name"], worker["host"]) == ("worker-0", "trainer")
    assert f"its starter is job {job['id']}" in compose("logs", "trainer")


def hardened() -> None:
    """No root, nothing that can be written but the volumes and /tmp, and no TensorFlow beside what answers."""
    for service in ("api", "trainer"):
        found = inspect(service)
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert (found["HostConfig"]["CapDrop"], found["Config"]["User"]) == (["ALL"], f"{USER}:{USER}")
        assert within(service, "id", "-u").decode().strip() == USER
        assert within(service, "cat", "/proc/1/comm").decode().strip() == "tini"
        for folder in ("/app", "/usr/local/lib", "/data", "/"):
            said = fails(service, "touch", f"{folder}/x")
            assert "Read-only" in said, said
        for folder in ("/data/models", "/data/datasets", "/data/state", "/tmp"):
            within(service, "sh", "-c", f"touch {folder}/.x && rm {folder}/.x")
    assert "No module named 'tensorflow'" in fails("api", "python", "-c", "import tensorflow")


def starter() -> None:
    """Each container ends in the middle of it, in every way; it goes on where it was, and is served."""
    (job,) = get("/train")["jobs"]
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        ("the trainer is restarted", lambda: compose("restart", "trainer")),
        ("the trainer's processes are killed", lambda: within("trainer", "sh", "-c", "kill -9 -1 || true")),
        ("the trainer is made anew", lambda: compose("up", "--detach", "--no-build", "--force-recreate", "trainer")),
        ("the api is restarted", lambda: compose("restart", "api")),
    )
    for number, (what, happens) in enumerate(ways, start=1):
        seen = reached(job["id"], number)
        before = inspect("trainer")["State"]["StartedAt"]
        with contextlib.suppress(subprocess.CalledProcessError):  # the command itself is killed too
            happens()
        until(lambda: healthy("api") and healthy("trainer"), 120)
        if what.startswith("the trainer"):
            assert inspect("trainer")["State"]["StartedAt"] != before
        until(lambda: at_work(job["id"]), 60)
        now = get(f"/train/{job['id']}")
        assert (now["state"], now["attempt"], now["worker"]) == ("running", 1, "worker-0"), now
        assert len(now["progress"]["epochs"]) >= seen
        say(f"{what} after epoch {seen}")
    until(lambda: over(job["id"]), 1200)
    assert f"job {job['id']}: epoch" in compose("logs", "trainer")
    job = get(f"/train/{job['id']}")
    assert (job["state"], job["version"], job["attempt"]) == ("succeeded", 1, 1), job["reason"]
    assert len(job["progress"]["epochs"]) == job["config"]["epochs"]
    spent = {phase["name"]: phase["seconds"] for phase in job["progress"]["phases"]}
    say(f"test accuracy {job['verdict']['accuracy']:.4f}; seconds: {spent}")
    until(ready, 60)


def predict() -> None:
    until(ready, 60)
    found = answers()
    right = sum(name.startswith(f"{label}/") for name, label in found.items())
    say(f"{right} of {len(found)} right")
    assert right >= 45
    assert "1 (live)" in within("trainer", "python", "-m", "training", "models", "list").decode()
    jobs = json.loads(within("trainer", "python", "-m", "training", "jobs", "list", "--json"))
    assert jobs[-1]["state"] == "succeeded"


def train() -> None:
    """An upload, a training, its report; with classes in Chinese, which need the image's own font."""
    names = within("api", "sh", "-c", "cd /data/datasets/digits/1/images; ls -d [012]/*").decode().split()
    packed = io.BytesIO(within("api", "tar", "-C", "/data/datasets/digits/1/images", "-cf", "-", *names))
    with tarfile.open(fileobj=packed) as source, tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as renamed:
            for member in source:
                digit, _, name = member.name.partition("/")
                content = source.extractfile(member)
                member.name = f"{CLASSES[digit]}/{name}"
                renamed.addfile(member, content)
        file.seek(0)
        answer = httpx.put(url() + "/datasets/few", content=file.read(), timeout=120)
    assert answer.status_code == 201, answer.text
    id = submitted("few")
    until(lambda: over(id), 600)
    job = get(f"/train/{id}")
    assert (job["state"], job["version"]) == ("rejected", 2), job["reason"]
    log = httpx.get(f"{url()}/train/{id}/log").text
    assert "Glyph" not in log, log
    picture = httpx.get(f"{url()}/train/{id}/report/confusion.png")
    assert picture.content.startswith(b"\x89PNG")
    assert "Traceback" not in compose("logs", "api")


def submitted(dataset: str, **headers: str) -> str:
    wanted = {"data": dataset, **SMALL, "gate": {"policy": "never"}}
    answer = httpx.post(url() + "/train", json=wanted, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def again() -> None:
    """`down` and `up`: all is there, and nothing is trained once more."""
    before, jobs = answers(), get("/train")["total"]
    compose("down")
    compose("up", "--detach", "--no-build")
    since = time.monotonic()
    until(ready, 120)
    say(f"ready {time.monotonic() - since:.1f} s after `up`")
    until(lambda: healthy("trainer"), 60)
    assert answers() == before
    assert get("/train")["total"] == jobs
    assert get("/health")["trainer"]["running"] == []


def answered(base: str, stop: Callable[[], object]) -> bytes:
    """The whole answer to an upload of which the better half comes only once `stop` has taken effect."""
    image = next(iter(images().values()))
    address = base.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
        connection.sendall(head.encode() + image[:10])
        assert ready(base)  # the loop has seen the bytes before this
        stopping = threading.Thread(target=stop)
        stopping.start()
        until(lambda: not ready(base), 20)
        connection.sendall(image[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    stopping.join()
    return answer


def drain() -> None:
    """A request that is under way as the container is stopped gets its answer."""
    answer = answered(url(), lambda: compose("stop", "api"))
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert inspect("api")["State"]["ExitCode"] == 0
    compose("stop", "trainer")
    assert inspect("trainer")["State"]["ExitCode"] == 0
    compose("up", "--detach", "--no-build")
    until(ready, 60)


def extras() -> None:
    """gRPC and traces as docs/containers.md sets them; a collector that is away costs spans and nothing else."""
    changes = page("containers.md", "services:\n  api:\n    environment: {RESNEXT_GRPC_PORT")
    api = changes["services"]["api"]
    api["environment"]["RESNEXT_OTLP_ENDPOINT"] = "http://trainer:4318"  # in place of a container more
    api["ports"] = [port.replace(":8001:", ":0:") for port in api["ports"]]  # whichever is free
    before = answers()
    with layered(changes) as files:
        compose(*files, "up", "--detach", "--no-build", "api")
        until(ready, 60)
        assert answers() == before  # nobody listens on 4318 yet
        until(lambda: "Failed to export spans" in compose("logs", "api"), 60)
        with triton.InferenceServerClient(url("api", 8001).removeprefix("http://")) as client:
            for name, image in images().items():
                tensor = triton.InferInput("image", [1], "BYTES")
                tensor.set_data_from_numpy(np.array([image], np.object_))
                best = triton.InferRequestedOutput("probabilities", class_count=1)
                (found,) = client.infer("resnext50", [tensor], outputs=[best]).as_numpy("probabilities").ravel()
                assert found.decode().rpartition(":")[2] == before[name]
        command = [*COMPOSE, "exec", "-T", "trainer", "python", "-c", COLLECTOR]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as collector:
            until(lambda: answers() == before and collector.poll() is not None, 60)
            assert collector.stdout
            spans = collector.stdout.read()
        assert spans.startswith(b"/v1/traces")
        assert b"POST /predict" in spans
        say(f"{len(before)} answers over gRPC; the first {len(spans)} bytes of spans")
        compose("stop", "api")
        assert inspect("api")["State"]["ExitCode"] == 0
    compose("up", "--detach", "--no-build", "api")
    until(ready, 60)


def predictor() -> None:
    """The service as KServe runs it by the manifest of docs/clients.md, with models that it can not write."""
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
        # Kubernetes sends SIGTERM, and SIGKILL 30 s later
        answer = answered(base, lambda: docker("stop", "--time", "30", name))
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        (state,) = json.loads(docker("inspect", name, "--format", "[{{json .State}}]"))
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    finally:
        docker("rm", "--force", name)


@contextlib.contextmanager
def keyed() -> Iterator[dict[str, str]]:
    """What makes compose bring the api up with a key."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (file := Path(folder, "keys")).write_text(f"{KEY}\n")
        yield {"RESNEXT_API_KEYS_FILE": str(file)}


def secrets() -> None:
    """A key from a file: asked for, and nowhere to be seen."""
    with keyed() as variables:
        compose("up", "--detach", "--no-build", "--force-recreate", "api", **variables)
        until(ready, 60)
        assert httpx.get(url() + "/train").status_code == 401
        assert get("/train", authorization=f"Bearer {KEY}")["total"] > 0
        assert KEY not in json.dumps(inspect("api"))
        assert KEY.encode() not in within("api", "sh", "-c", "cat /proc/*/environ || true")
    compose("up", "--detach", "--no-build", "--force-recreate", "api")
    until(ready, 60)


def monitoring() -> None:
    """Prometheus reads the metrics, with a key and without; it knows every alert, and every query of the dashboard."""
    with keyed() as variables:
        for given in (variables, {}):
            compose("--profile", "monitoring", "up", "--detach", "--no-build", "--force-recreate", **given)
            until(ready, 60)
            until(lambda: healthy("prometheus"), 60)
            base = url("prometheus", 9090) + "/api/v1"
            until(functools.partial(scraped, base), 60)
    rules = [rule for group in asked(f"{base}/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == (ROOT / "monitoring/alerts.yml").read_text().count("alert:")
    until(lambda: all(rule["health"] == "ok" for g in asked(f"{base}/rules")["groups"] for rule in g["rules"]), 60)
    # of counters and histograms, a minute has to pass first; the rest is where there is something
    absent = r"_total|_bucket|_count|resnext_job_|_gpu_|ALERTS"
    if docker("info", "--format", "{{.CgroupVersion}}") == "1":
        absent += "|_memory_limit_"  # which the service reads of cgroup v2
    for place, query in queries().items():
        found = asked(f"{base}/query", query=query)["result"]
        say(f"{place}: {len(found)}")
        assert found or re.search(absent, query), query
    mounts = [f"--volume={ROOT}/monitoring:/monitoring:ro", f"--volume={ROOT}/tests/monitoring:/tests:ro"]
    run = ["run", "--no-TTY", "--no-deps", "--rm", *mounts, "--env=TMPDIR=/prometheus", "--entrypoint=promtool"]
    say(compose("--profile", "monitoring", *run, "prometheus", "test", "rules", "/tests/alerts.yml").strip())
    if container("grafana"):
        until(lambda: healthy("grafana"), 120)
        assert asked(url("grafana", 3000) + "/api/dashboards/uid/resnext", whole=True)["dashboard"]["title"]
    compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus", "grafana")


def scraped(base: str) -> bool:
    try:
        answer = httpx.get(f"{base}/targets", timeout=5)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and any(t["health"] == "up" for t in answer.json()["data"]["activeTargets"])


def asked(address: str, *, whole: bool = False, **parameters: str) -> Json:
    answer = httpx.get(address, params=parameters, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json() if whole else answer.json()["data"])


def postgres() -> None:
    """The jobs in PostgreSQL, by a URL that is a secret; the models stay."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (word := Path(folder, "word")).write_text("not-so-secret")
        (database := Path(folder, "url")).write_text("postgresql://resnext:not-so-secret@postgres/resnext")
        variables = {"POSTGRES_PASSWORD_FILE": str(word), "RESNEXT_DATABASE_FILE": str(database)}
        compose("--profile", "postgres", "up", "--detach", "--no-build", "--force-recreate", **variables)
        until(ready, 120)
        until(lambda: healthy("postgres") and healthy("trainer"), 60)
        assert get("/train")["total"] == 0
        id = submitted("digits")
        until(lambda: at_work(id), 60)
        compose("--profile", "postgres", "restart", "postgres", "trainer")
        until(lambda: over(id), 600)
        assert get(f"/train/{id}")["state"] == "rejected"
        assert "not-so-secret" not in compose("logs", "api", "trainer")
    compose("up", "--detach", "--no-build", "--force-recreate")
    compose("--profile", "postgres", "rm", "--stop", "--force", "postgres")


def down() -> None:
    compose("--profile", "*", "down", "--volumes", "--remove-orphans")


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


def say(text: str) -> None:
    sys.stdout.write(f"    {text}\n")
    sys.stdout.flush()


def main(names: list[str]) -> int:
    """Runs the steps of these names, or all of them and `down`."""
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
