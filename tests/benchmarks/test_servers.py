import os
import subprocess
import sys

import pytest

from benchmarks.servers import ROOT, SERVERS, stop, tree

SPAWN = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print(flush=True); sys.stdin.read()"


def test_a_server_is_ended_with_what_it_started() -> None:
    command = [sys.executable, "-c", SPAWN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        parent, child = tree(process.pid)
        assert parent == process.pid
        stop(process)
        process.stdout.read()  # ends when nobody holds the pipe any more: the child is gone
    assert os.getpid() not in (parent, child)


@pytest.mark.parametrize(
    "name", [name for name, server in SERVERS.items() if "{env}" in server.command and not server.ours]
)
def test_a_peer_has_its_requirements_at_our_versions(name: str) -> None:
    pins = (ROOT / "benchmarks" / "peers" / name / "requirements.txt").read_text().split()
    locked = (ROOT / "requirements" / "dev.txt").read_text().split()
    for package in ("onnxruntime-gpu", "numpy", "pillow"):
        ours = next(word for word in locked if word.startswith(f"{package}=="))
        assert ours in pins


def test_a_request_has_the_length_that_it_says() -> None:
    for server in SERVERS.values():
        head, body = server.request(b"\xff\xd8photo").split(b"\r\n\r\n", 1)
        assert f"Content-Length: {len(body)}".encode() in head
