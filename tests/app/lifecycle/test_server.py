"""The service as its operator runs it: a process of its own."""

import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.app.network import encoded, publish, random_images
from tests.process import answers, run, service, until
from training.contract import ModelRepository

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
    assert errors.startswith("resnext-service can not start: " + expected)
    assert errors.count("\n") == 1


def test_port_in_use_ends_the_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run(models=str(tmp_path), port=str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 3  # uvicorn's, of a start that failed
    assert "address already in use" in errors
    assert "Traceback" not in errors
