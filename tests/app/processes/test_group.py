"""Several serving processes, started as an operator starts them."""

import contextlib
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.observability.metrics import FOLDER
from app.processes.group import environment_of_member, serve_in_processes, sockets_of
from app.settings import Settings
from tests.app.network import encoded, network, publish, random_images
from tests.process import answers, free_port, run, service, until
from tests.training.engine import gone
from training.contract.repository import ModelRepository
from training.system.locks import exclusive

IMAGE = encoded(random_images(1)[0])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shared_by(pid: int) -> Path:
    """Returns the folder that a member shares with the others."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(Path(os.fsdecode(v.partition(b"=")[2])) for v in variables if v.startswith(FOLDER.encode() + b"="))


def opened(pid: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    found = False
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found |= os.readlink(file).endswith(f"/{name}")
    return found


@contextmanager
def two(root: Path) -> Iterator[tuple[int, int, list[int]]]:
    """Yields the starter's process id, the port, and the process ids of its two members, which are ready."""
    with service(root, processes="2") as (process, port):
        until(lambda: len(ready(port)) == 2)
        yield process.pid, port, children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_addresses_are_told_before_any_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> int:
        return 0

    monkeypatch.setattr("app.processes.group._keep", start)  # which would not end

    class Told(Exception):
        pass

    def opened(addresses: Sequence[str]) -> None:
        raise Told(*addresses)

    with pytest.raises(Told) as caught:
        serve_in_processes(Settings(host="127.0.0.1", port=0), opened)
    assert caught.value.args == ("127.0.0.1",)


def ask(port: int, path: str, **arguments: object) -> httpx.Response:
    """Sends a request on a new connection, which either process may get."""
    method = "POST" if arguments else "GET"
    # without certificates, which take 20 ms of a core to load: this is asked in loops
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", verify=False, **arguments)  # type: ignore[arg-type]


def ready(port: int) -> Counter[int]:
    """Returns how often each process that is ready answered, of 40 requests."""
    answered = [ask(port, "/health").json() for _ in range(40)]
    return Counter(health["process"] for health in answered if health["status"] == "ready")


def metric(port: int, name: str) -> float:
    """Returns the sum of a metric's lines."""
    lines = ask(port, "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))


def test_both_serve_swap_and_count_and_both_end(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, 1)
    with two(tmp_path) as (_, port, members):
        assert min(ready(port).values()) > 4  # of 40; by chance less than one time in a million
        assert metric(port, "resnext_swaps_total") == 0
        publish(repository, 2, model=network(2))
        until(lambda: metric(port, "resnext_swaps_total") == 2)
        versions = {ask(port, "/predict", files={"file": IMAGE}).json()["model"]["version"] for _ in range(20)}
        assert versions == {2}
        requests = 'resnext_requests_total{method="POST",route="/predict",status="200",version="2"}'
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as one:  # one connection: one process
            until(lambda: f"{requests} 20.0" in one.get("/metrics").text)  # summed over both
        assert metric(port, "resnext_images_total") == 20
        assert metric(port, 'resnext_stage_seconds_count{stage="infer"}') == 20
        assert metric(port, "resnext_queue_images") == 0
        assert metric(port, "resnext_queue_limit_images") == 2 * 256
        memory = re.findall(r'^resnext_process_memory_bytes{pid="(\d+)"}', ask(port, "/metrics").text, re.MULTILINE)
        assert sorted(map(int, memory)) == sorted(members)
        assert 'version="2"} 1.0' in ask(port, "/metrics").text
    assert all(gone(pid) for pid in members)


def test_both_serve_what_one_has_measured(repository: ModelRepository, tmp_path: Path) -> None:
    """Otherwise each might choose another precision, and a client would get answers of both."""
    publish(repository, int8=network())
    with two(tmp_path) as (_, port, members):
        answers = [ask(port, "/health").json() for _ in range(40)]
    measured = {answer["process"]: (answer["model"]["precision"], answer["model"]["speeds"]) for answer in answers}
    assert sorted(measured) == sorted(members)
    assert measured[members[0]] == measured[members[1]]


def test_one_that_dies_is_started_again_while_the_other_serves(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, 1)
    with two(tmp_path) as (starter, port, members):
        shared = shared_by(members[0])
        with exclusive(shared / "measured.lock"):
            for measured in shared.glob("measured-*.json"):
                measured.unlink()  # so that the new one waits for the lock while it loads
            os.kill(members[0], signal.SIGKILL)
            until(lambda: any(opened(pid, "measured.lock") for pid in children(starter)))
            assert {ask(port, "/predict", files={"file": IMAGE}).status_code for _ in range(20)} == {200}
            assert set(ready(port)) == {members[1]}
        until(lambda: len(ready(port)) == 2)
        assert len(children(starter)) == 2
        assert members[0] not in children(starter)


def test_they_end_with_a_starter_that_is_killed(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, 1)
    with service(tmp_path, processes="2") as (process, port):
        until(lambda: len(ready(port)) == 2)
        members = children(process.pid)
        process.kill()
        until(lambda: all(gone(pid) for pid in members))
        assert not answers(f"http://127.0.0.1:{port}/health/live", 200)


def test_settings_that_can_not_work_end_them_all(tmp_path: Path) -> None:
    process = run(models=str(tmp_path), processes="2", provider="openvino", port=str(free_port()))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "RESNEXT_PROVIDER is openvino, which does not work here" in errors


def test_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        process = run(models=str(tmp_path), processes="2", port=str(port))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in errors


def test_a_port_that_one_process_has_just_left_can_be_had() -> None:
    """Closed connections hold the port for a minute against every socket without SO_REUSEADDR."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            client.recv(1)
    (found,) = sockets_of(Settings(host="127.0.0.1", port=port))
    with found:
        assert found.getsockname()[1] == port


@pytest.mark.parametrize(("threads", "share"), [("auto", "1"), ("3", "3")])
def test_a_member_has_its_share_of_the_cores(threads: str, share: str) -> None:
    settings = Settings.model_validate({"processes": 1000, "threads": threads, "port": 7})
    member = environment_of_member(settings, "folder")
    assert (member["RESNEXT_THREADS"], member["RESNEXT_DECODE_THREADS"]) == (share, "1")
    assert (member["RESNEXT_PORT"], member["PROMETHEUS_MULTIPROC_DIR"]) == ("7", "folder")
