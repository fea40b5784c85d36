"""Compose's and Docker's commands, run in a project of their own."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import yaml

from tests.process import ROOT

PROJECT = "resnext-test"
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker compose")), "--project-name", PROJECT]
# the files that a further --file changes
FILES = () if {"-f", "--file"} & set(COMPOSE) else ("--file", "docker-compose.yml")
PORTS = {"PORT": "0", "PROMETHEUS_PORT": "0", "GRAFANA_PORT": "0"}  # any that are free
Json = dict[str, Any]  # Any: JSON


def say(text: str) -> None:
    sys.stdout.write(f"    {text}\n")
    sys.stdout.flush()


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


@contextlib.contextmanager
def layered(changes: Json) -> Iterator[tuple[str, ...]]:
    """Yields the options that name the compose files and, on top, a file with these changes."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(changes, file)
        file.flush()
        yield (*FILES, "--file", file.name)


def healthy(service: str) -> bool:
    state = inspect(service)["State"]
    return bool(state["Running"] and state["Health"]["Status"] == "healthy")


def within(service: str, *command: str) -> bytes:
    """Runs a command in a service's container and returns what it prints."""
    return subprocess.run([*COMPOSE, "exec", "-T", service, *command], cwd=ROOT, capture_output=True, check=True).stdout


def fails(service: str, *command: str) -> str:
    """Runs a command that has to fail in a service's container, and returns its output."""
    done = subprocess.run([*COMPOSE, "exec", "-T", service, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0, command
    return done.stderr + done.stdout


def url(service: str = "api", port: int = 8000) -> str:
    return "http://" + compose("port", service, str(port)).strip()
