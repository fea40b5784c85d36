"""The service as an operator runs it: as a process."""

import asyncio
import contextlib
import functools
import resource
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tests.app.api.door.served import Served, get
from tests.app.network import encoded, publish, random_images
from tests.process import answers, environment, free_port, run, service, until
from tests.terminal import END_OF_TEXT, Terminal
from training.contract.repository import ModelRepository

IMAGE = encoded(random_images(1)[0])


def test_ready_once_there_is_a_model_and_gone_after_sigterm(repository: ModelRepository, tmp_path: Path) -> None:
    with service(tmp_path) as (process, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/health/ready").status_code == 503
        publish(repository)
        until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/predict", files={"file": IMAGE}).status_code == 200
        process.send_signal(signal.SIGTERM)  # the client's connection is open and idle
        assert process.wait(20) == 0


def test_request_in_flight_is_answered_after_sigterm(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    with service(tmp_path) as (process, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
            )
            connection.sendall(head.encode() + IMAGE[:10])
            until(
                lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200)
            )  # the loop has seen the bytes before this
            process.send_signal(signal.SIGTERM)
            until(lambda: not answers(f"http://127.0.0.1:{port}/health/live", 200))
            connection.sendall(IMAGE[10:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'"predictions"' in answer
        assert b"connection: close" in answer.lower()
        assert process.wait(20) == 0


def test_drain_delay_keeps_serving_while_ready_says_503(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    with service(tmp_path, drain_delay="2") as (process, port):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health/ready", 200))
        process.send_signal(signal.SIGTERM)
        until(lambda: answers(f"{url}/health/ready", 503))
        assert httpx.post(f"{url}/predict", files={"file": IMAGE}).status_code == 200
        assert process.wait(20) == 0


@pytest.mark.anyio
async def test_who_has_reached_the_kernel_is_answered_when_the_port_closes() -> None:
    async with Served() as served:
        # the loop does not run between the connections and the end of the port, so nobody has accepted them
        asked = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(20)]
        late = socket.create_connection(("127.0.0.1", served.port), timeout=20)
        for connection in asked:
            connection.sendall(get("/echo"))
        await served.close_port()
        late.sendall(get("/echo"))
        for connection in (*asked, late):
            with connection:
                assert (await asyncio.to_thread(connection.recv, 100)).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port))


def test_clients_can_not_take_all_connections_nor_fill_the_log(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    limited = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
    with service(tmp_path, limited) as (process, port), contextlib.ExitStack() as held:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200))
        for _ in range(300):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with contextlib.suppress(OSError):
                connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert answers(f"http://127.0.0.1:{port}/health/live", 200)
        assert answers(f"http://127.0.0.1:{port}/health/ready", 200)
        assert answers(f"http://127.0.0.1:{port}/models", 503)
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 200
        held.close()
        until(lambda: answers(f"http://127.0.0.1:{port}/models", 200))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert len(log.splitlines()) < 30


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"port": "http"}, "RESNEXT_PORT: Input should be a valid integer"),
        ({"batch_delay": "-1"}, "RESNEXT_BATCH_DELAY: Input should be greater than or equal to 0, got '-1'"),
        ({"provider": "openvino"}, "RESNEXT_PROVIDER is openvino, which does not work here"),
    ],
)
def test_settings_that_can_not_work_stop_the_start_with_one_line(settings: dict[str, str], expected: str) -> None:
    process = run(**settings)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("resnext-service cannot start: " + expected)
    assert errors.count("\n") == 1


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("setting", ["port", "grpc_port"])
def test_a_port_in_use_stops_the_start_with_one_line(
    repository: ModelRepository, tmp_path: Path, setting: str, processes: str
) -> None:
    publish(repository)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = run(**{"models": str(tmp_path), "processes": processes, "port": "0", setting: port})
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith(f"resnext-service cannot start: port {port} on 127.0.0.1 is in use")
    assert f"set RESNEXT_{setting.upper()} to another port" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])  # of no machine: RFC 5737, RFC 2606
def test_an_address_that_cannot_be_had_stops_the_start_with_one_line(tmp_path: Path, host: str) -> None:
    process = run(models=str(tmp_path), host=host)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(f"resnext-service cannot start: port 8000 on {host} cannot be opened: ")
    assert errors.count("\n") == 1


def test_the_log_of_a_start_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with service(tmp_path, workers="2", name="worker-0", image_size="64") as (process, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 503))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    (line,) = (line for line in log.splitlines() if "nothing is served" in line)
    assert f"nothing is served from {tmp_path} yet: no version of 'resnext50' is active" in line
    assert "resnext train DIR" in line
    assert f"serving on http://127.0.0.1:{port} (Ctrl-C ends it)" in log
    assert "RESNEXT_WORKERS is no setting; did you mean RESNEXT_WORKER?" in log
    assert "RESNEXT_IMAGE_SIZE is no setting" in log
    assert "RESNEXT_NAME" not in log


def test_the_log_of_a_start_with_a_model_has_no_warning(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    with service(tmp_path) as (process, port):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert "WARNING" not in log


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_it_without_a_traceback(repository: ModelRepository, tmp_path: Path, presses: int) -> None:
    publish(repository)
    variables = environment(models=str(tmp_path), state=str(tmp_path / "state"), port=str(free_port()), worker="true")
    with Terminal(sys.executable, "-m", "app", environment=variables, seconds=60) as terminal:
        terminal.until(lambda terminal: "Ctrl-C ends it" in terminal.text)
        terminal.press(END_OF_TEXT * presses)
        assert terminal.to_end() == 0
    assert "Traceback" not in terminal.text
    assert "ERROR" not in terminal.text
