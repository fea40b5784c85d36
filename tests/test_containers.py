"""The Dockerfile and the compose files, read and not run: what they name is there. `make compose-test` runs them."""

import os
import re
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app import __version__
from app.settings import Settings
from training.cli.jobs import RunWorker
from training.environment import ENV_PREFIX
from training.jobs.presence import Presence
from training.jobs.settings import SharedSettings
from training.system.child import GRACE_S

ROOT = Path(__file__).parents[1]
VARIABLES = {ENV_PREFIX + name.upper() for name in {**Settings.model_fields, **RunWorker.model_fields}}
PLACES = {"RESNEXT_MODELS", "RESNEXT_DATASETS", "RESNEXT_WEIGHTS", "RESNEXT_STATE"}
OURS = ("api", "trainer")

Yaml = dict[str, Any]  # Any: what a YAML file holds


class Instruction(NamedTuple):
    """`RUN pip install` is RUN and the rest."""

    name: str
    text: str


def stages() -> dict[str, list[Instruction]]:
    """Returns the instructions of each stage of the Dockerfile, from its FROM on."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[Instruction]] = {"": []}
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found[rest.rpartition(" AS ")[2]] = []
        list(found.values())[-1].append(Instruction(name, rest.strip()))
    return found


def chain(target: str, accelerator: str) -> list[Instruction]:
    """All that makes an image, from the base on."""
    own = stages()[target]
    parent = own[0].text.partition(" ")[0].replace("${ACCELERATOR}", accelerator)
    return [*(chain(parent, accelerator) if parent in stages() else []), *own]


def of(instructions: list[Instruction], name: str) -> list[str]:
    return [instruction.text for instruction in instructions if instruction.name == name]


def environment(instructions: list[Instruction]) -> dict[str, str]:
    return {key: value for text in of(instructions, "ENV") for key, _, value in _pairs(text)}


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    return (part.partition("=") for part in shlex.split(text))


def locked(file: str) -> dict[str, str]:
    """Names and versions of a lock."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))


def compose(file: str = "docker-compose.yml") -> Yaml:
    """A compose file as it stands, its variables not replaced."""
    return dict(yaml.safe_load((ROOT / file).read_text()))


@pytest.fixture(scope="module")
def services() -> Yaml:
    return dict(compose()["services"])


@pytest.mark.parametrize(
    ("target", "accelerator"),
    [("serve", "cpu"), ("serve", "cuda"), ("serve", "openvino"), ("train", "cpu"), ("train", "cuda")],
)
def test_an_image_is_locked_drops_root_and_says_how_it_is(target: str, accelerator: str) -> None:
    made = chain(target, accelerator)
    names = [instruction.name for instruction in made]
    assert of(made, "USER") == ["10001:10001"]
    assert "RUN" not in names[names.index("USER") :]
    assert of(made, "ENTRYPOINT") == ['["tini", "--"]']
    assert len(of(made, "HEALTHCHECK")) == len(of(made, "CMD")) == 1
    labels = {key.removeprefix("org.opencontainers.image.") for text in of(made, "LABEL") for key, _, _ in _pairs(text)}
    assert labels == {"title", "description", "licenses", "version", "revision"}
    assert f"VERSION={__version__}" in of(made, "ARG")
    installs = [text for text in of(made, "RUN") if "pip install" in text]
    assert installs
    for text in installs:
        assert "--require-hashes" in text
        assert "type=cache,target=/root/.cache/pip" in text
    last_install = max(i for i, instruction in enumerate(made) if "pip install" in instruction.text)
    assert last_install < names.index("COPY"), "a change of the code would install everything anew"


@pytest.mark.parametrize(
    ("target", "accelerator", "locks"),
    [
        ("serve", "cpu", ["serve.txt"]),
        ("serve", "cuda", ["serve-cuda.txt"]),
        ("serve", "openvino", ["serve-openvino.txt"]),
        ("train", "cpu", ["serve.txt", "train.txt"]),
        ("train", "cuda", ["serve.txt", "train-cuda.txt"]),
    ],
)
def test_an_image_has_the_libraries_of_its_accelerator(target: str, accelerator: str, locks: list[str]) -> None:
    sources = re.findall(r"source=requirements/(\S+?),", " ".join(of(chain(target, accelerator), "RUN")))
    assert sources == locks
    libraries: dict[str, str] = {}
    for lock in locks:
        assert {name for name in locked(lock) if libraries.get(name, locked(lock)[name]) != locked(lock)[name]} == set()
        libraries |= locked(lock)
    assert ("tensorflow" in libraries) == (target == "train")
    cuda = {name.rpartition("-")[2] for name in libraries if re.search(r"cudnn-cu\d\d$", name)}
    assert cuda == {("serve", "cuda"): {"cu13"}, ("train", "cuda"): {"cu12"}}.get((target, accelerator), set())


@pytest.mark.parametrize("lock", ["serve.txt", "serve-cuda.txt", "serve-openvino.txt"])
def test_no_setting_of_the_service_needs_an_image_of_its_own(lock: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[><=; ]", line)[0] for extra in ("grpc", "otel") for line in extras[extra]}
    assert {"tritonclient", "opentelemetry-sdk"} <= wanted <= set(locked(lock))


def test_the_lock_of_every_image_names_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text(), path


def test_the_service_is_what_is_built_by_default_and_has_its_port() -> None:
    assert list(stages())[-1] == "serve"
    assert of(chain("serve", "cpu"), "EXPOSE") == [str(Settings.model_fields["port"].default)]


@pytest.mark.parametrize("target", ["serve", "train"])
def test_an_image_has_the_code_that_it_copies_and_settings_that_there_are(target: str) -> None:
    made = chain(target, "cpu")
    assert {name for name in environment(made) if name.startswith(ENV_PREFIX)} <= VARIABLES
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for text in of(made, "COPY") for source in text.split()[:-1]}
    assert copied < allowed
    assert all((ROOT / source).exists() for source in copied)
    folders = {environment(made)[name] for name in PLACES}
    (prepared,) = [text for text in of(made, "RUN") if "install --directory --owner resnext" in text]
    assert folders <= set(prepared.split())


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_can_write_its_volumes_and_tmp_alone(services: Yaml, name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    made = chain(service["build"]["target"], service["build"]["args"]["ACCELERATOR"])
    mounted = dict(mount.split(":") for mount in service["volumes"])
    assert {environment(made)[place] for place in PLACES} == set(mounted.values())
    assert set(mounted) <= set(compose()["volumes"])
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert "--home-dir /tmp " in " ".join(of(made, "RUN"))
    assert environment(made)["MPLCONFIGDIR"].startswith("/tmp/")


def test_every_container_comes_back_has_limits_and_is_of_a_fixed_version(services: Yaml) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert re.search(r":v?\d|^resnext-\w+:cpu$", service["image"]), name
        assert name in OURS or "healthcheck" in service, name
        for other, condition in service.get("depends_on", {}).items():
            assert other in services
            assert condition["condition"] == "service_healthy"


def test_what_is_optional_is_in_a_profile_and_nothing_needs_it(services: Yaml) -> None:
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert profiles == {
        "api": [],
        "trainer": [],
        "postgres": ["postgres"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    assert all(services[name]["depends_on"]["postgres"]["required"] is False for name in OURS)


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_a_stop_leaves_the_time_that_a_drain_needs(services: Yaml) -> None:
    api = services["api"]["environment"]
    drain = float(api["RESNEXT_DRAIN_DELAY"]) + int(api["RESNEXT_DRAIN_TIMEOUT"])
    assert seconds(services["api"]["stop_grace_period"]) >= drain + 5
    assert seconds(services["trainer"]["stop_grace_period"]) >= 5 * GRACE_S


def test_settings_and_secrets_are_those_that_there_are(services: Yaml) -> None:
    for name in OURS:
        assert set(services[name]["environment"]) <= VARIABLES
        assert set(services[name]["secrets"]) <= {(ENV_PREFIX + field).lower() for field in Settings.model_fields}
    assert services["api"]["environment"]["RESNEXT_WORKER"] == "false"
    secrets = compose()["secrets"]
    assert {secret for service in services.values() for secret in service.get("secrets", [])} == set(secrets)
    assert (ROOT / "secrets/none").read_bytes() == b""
    for name in ("resnext_api_keys", "resnext_database", "prometheus_api_key"):
        assert secrets[name]["file"].rstrip("}").endswith(":-./secrets/none")
    assert "postgres" in services["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]


def test_the_trainer_and_the_service_see_the_same_jobs(services: Yaml) -> None:
    api, trainer = (services[name] for name in OURS)
    for same in ("volumes", "secrets"):
        assert api[same] == trainer[same]
    assert api["environment"]["RESNEXT_MODEL"] == trainer["environment"]["RESNEXT_MODEL"]
    assert trainer["command"] == ["python", "-m", "training", "worker", "--starter"]
    assert trainer["environment"]["RESNEXT_NAME"] == RunWorker.model_fields["name"].default  # fixed: it is an identity
    assert set(SharedSettings.model_fields) <= set(Settings.model_fields)


def test_files_that_are_mounted_are_there(services: Yaml) -> None:
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    local = [mount for mount in mounts if mount.startswith(".")]
    assert local
    assert all((ROOT / mount).exists() for mount in local)
    assert {mount for mount in mounts if not mount.startswith(".")} == set(compose()["volumes"])


def test_ports_are_open_to_this_machine_alone_unless_told(services: Yaml) -> None:
    for service in services.values():
        assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service.get("ports", []))
    (port,) = services["api"]["ports"]
    assert port.endswith(f":{Settings.model_fields['port'].default}")


def test_with_gpus_both_have_cuda_and_a_device(services: Yaml) -> None:
    changed = compose("docker-compose.gpu.yml")["services"]
    assert set(changed) == set(OURS)
    for name, service in changed.items():
        assert service["build"]["args"] == {"ACCELERATOR": "cuda"}
        assert service["image"] == services[name]["image"].replace(":cpu", ":cuda")
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert changed["api"]["environment"] == {"RESNEXT_PROVIDER": "cuda"}


def test_with_openvino_the_service_has_it_and_training_is_as_without(services: Yaml) -> None:
    changed = compose("docker-compose.openvino.yml")["services"]
    assert set(changed) == {"api"}
    assert changed["api"]["build"]["args"] == {"ACCELERATOR": "openvino"}
    assert changed["api"]["image"] == services["api"]["image"].replace(":cpu", ":openvino")
    assert changed["api"]["environment"] == {"RESNEXT_PROVIDER": "openvino"}


def test_what_the_page_puts_on_top_names_settings_and_services_that_there_are(services: Yaml) -> None:
    page = (ROOT / "docs/containers.md").read_text()
    examples = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    for name, service in (pair for example in examples for pair in example["services"].items()):
        assert name in services or service["extends"]["service"] in services
        assert set(service["environment"]) <= VARIABLES
    (api,) = (example["services"]["api"] for example in examples if "api" in example["services"])
    assert api["ports"] == [f"127.0.0.1:{api['environment']['RESNEXT_GRPC_PORT']}:8001"]


def test_every_variable_of_the_compose_files_is_documented_with_its_default() -> None:
    text = "".join((ROOT / file).read_text() for file in ("docker-compose.yml", "docker-compose.gpu.yml"))
    used = dict(re.findall(r"\$\{(\w+):-([^${}]*)\}", text))
    used["PROMETHEUS_API_KEY_FILE"] = "RESNEXT_API_KEYS_FILE"
    assert set(re.findall(r"\$\{(\w+)", text)) == set(used)
    page = (ROOT / "docs/containers.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| .+ \|$", page, re.MULTILINE)) == used


def test_the_workers_health_check_knows_a_worker_that_lives(tmp_path: Path) -> None:
    """It is a line of shell: starting Python for it every 15 seconds would cost a second of a core each time."""
    (check,) = of(chain("train", "cpu"), "HEALTHCHECK")
    command = ["sh", "-c", check.partition(" CMD ")[2]]
    places = {"PATH": os.environ["PATH"], "RESNEXT_STATE": str(tmp_path), "RESNEXT_NAME": "worker-0"}
    worker = Presence(tmp_path / "workers", "worker-0")

    def healthy() -> bool:
        return subprocess.run(command, env=places, check=False).returncode == 0

    assert not healthy()
    with worker.held(threading.Event(), 0):
        assert healthy()
    assert not healthy()
