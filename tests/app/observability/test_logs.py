import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Scope

from app.observability.logs import LIMIT, JsonLines, RequestLog, request_line
from app.observability.observation import CURRENT, Observation
from app.observability.timing import Timing
from tests.app.conftest import Serve
from tests.app.network import encoded, network, publish, random_images
from tests.process import answers, service, until
from training.contract.repository import ModelRepository

Line = dict[str, Any]  # Any: JSON
IMAGE = encoded(random_images(1)[0])
pytestmark = pytest.mark.anyio

GET: Scope = {"type": "http", "method": "GET", "path": "/health"}


def parsed(text: str) -> list[Line]:
    return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def request_log() -> AsyncIterator[tuple[RequestLog, int]]:
    """Yields a running log, and the reading end of the pipe that it writes to."""
    out, into = os.pipe()
    async with RequestLog(into) as log:
        yield log, out
    os.close(into)
    os.close(out)


def read(out: int, lines: int) -> list[Line]:
    """Waits for this many lines."""
    text = b""
    while text.count(b"\n") < lines:
        text += os.read(out, 65536)
    return parsed(text.decode())


def test_a_request_is_one_line_with_its_stages() -> None:
    timings = [Timing(0.002, 0.001, 0.0), Timing(0.001, 0.004, 0.0)]
    request = Observation("mine", 10.0, 10.001, 200, version="7", timings=timings)
    line = json.loads(request_line({**GET, "path": "/predict"}, "/predict", request, 0.01))
    assert line.pop("time") > 1e9
    assert line == {
        "level": "info",
        "logger": "request",
        "request_id": "mine",
        "method": "GET",
        "route": "/predict",
        "status": 200,
        "ms": 10.0,
        "version": 7,
        "images": 2,
        "receive_ms": 1.0,
        "decode_ms": 2.0,
        "queue_ms": 4.0,
        "infer_ms": 0.0,
    }


def test_a_path_that_is_no_route_is_quoted_and_cut() -> None:
    path = '/"quotes"\n\\' + "é" * 1000
    line = json.loads(request_line({**GET, "path": path}, "other", Observation("a", 0, status=404), 0.001))
    assert line["path"] == path[:512]
    assert "version" not in line


async def test_lines_are_written_in_order_and_the_last_ones_at_the_end() -> None:
    out, into = os.pipe()
    async with RequestLog(into) as log:
        for i in range(300):  # more than fits into one write
            log.end(GET, "/health", Observation(str(i), 0), 0.001)
    os.close(into)
    assert [line["request_id"] for line in read(out, 300)] == [str(i) for i in range(300)]
    os.close(out)


async def test_a_reader_that_is_slow_costs_lines_which_are_counted() -> None:
    async with request_log() as (log, out):
        log.end(GET, "/health", Observation("first", 0), 0.001)
        total = 2 * LIMIT + 1000
        for _ in range(total):  # a pipe holds some hundreds
            log.end(GET, "/health", Observation("x", 0), 0.001)
        lines: list[Line] = []
        while not (lines and "dropped" in lines[-1]):
            lines += read(out, 1)
        assert lines[0]["request_id"] == "first"
        assert len(lines) - 2 + lines[-1]["dropped"] == total


async def test_without_a_reader_the_writer_ends_quietly(recwarn: pytest.WarningsRecorder) -> None:
    out, into = os.pipe()
    os.close(out)
    async with RequestLog(into) as log:
        log.end(GET, "/health", Observation("x", 0), 0.001)
    os.close(into)
    assert not [thread for thread in threading.enumerate() if thread.name == "request log"]
    assert not recwarn.list


def test_a_message_has_the_id_of_its_request_and_its_exception() -> None:
    CURRENT.set(Observation("mine", 0))
    try:
        raise ZeroDivisionError("over\nnothing")
    except ZeroDivisionError as error:
        exception = (type(error), error, error.__traceback__)
    record = logging.LogRecord("app.execution.model", logging.ERROR, "", 0, "version %d", (7,), exception)
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("error", "app.execution.model", "version 7")
    assert line["request_id"] == "mine"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("over\nnothing")
    CURRENT.set(None)


def log_of(root: Path, **settings: str) -> str:
    """Returns what a service prints while it answers two requests, one of them with an error, and ends."""
    with service(root, **settings) as (process, port):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health/ready", 200))
        headers = {"X-Request-ID": "good"}
        assert httpx.post(f"{url}/predict?top_k=1", files={"file": ("secret.png", IMAGE)}, headers=headers).is_success
        httpx.get(f"{url}/nowhere", headers={"X-Request-ID": "bad"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr
        return process.stderr.read()


def test_as_json_every_line_is_an_object_and_each_request_has_one(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    text = log_of(tmp_path, log="json", log_level="debug")
    lines = parsed(text)
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    assert any("version 1 is live" in line.get("message", "") for line in lines)
    (good,) = [line for line in lines if line.get("request_id") == "good" and "status" in line]
    assert (good["route"], good["status"], good["version"], good["images"]) == ("/predict", 200, 1, 1)
    (bad,) = [line for line in lines if line.get("request_id") == "bad" and "status" in line]
    assert (bad["route"], bad["path"], bad["status"]) == ("other", "/nowhere", 404)
    assert "uvicorn.access" not in {line["logger"] for line in lines}
    assert "secret" not in text


def test_as_text_there_are_messages_and_no_requests(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    text = log_of(tmp_path)
    assert "INFO app.rollout.serving: version 1 is live" in text
    assert "/predict" not in text


@pytest.mark.anyio
async def test_what_breaks_off_is_logged_too(
    serve: Serve, repository: ModelRepository, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(repository, 1, model=network(1, slow=True))
    async with serve(log="json", request_timeout=0.001) as (client, _):
        await client.post("/predict", content=IMAGE)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [(line["status"], line["version"]) for line in lines] == [(504, 1)]
