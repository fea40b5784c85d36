import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from rich.console import Console
from starlette.types import Message, Scope

from app.main import create_app
from app.services import Services
from app.settings import Settings
from app.trainer.jobs import LIMIT_S
from tests.app.conftest import Serve
from tests.app.network import publish
from tests.process import free_port, service, until
from tests.sse import Event, parsed
from tests.training.engine import Engine, spoil
from tests.training.progress import epoch, step
from training.config import TrainConfig
from training.contract.repository import ModelRepository
from training.datasets.store import DatasetStore, Summary
from training.runs.console import ProgressLog

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def photos(tmp_path: Path) -> Path:
    """Makes a folder as an operator would put it there."""
    folder = tmp_path / "datasets" / "photos"
    for label in ("rose", "tulip"):
        (folder / label).mkdir(parents=True)
    return folder


async def submitted(client: httpx.AsyncClient, **fields: object) -> str:
    answer = await client.post("/train", json={"data": "photos", **fields})
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def progress_of(services: Services, id: str) -> ProgressLog:
    return ProgressLog(services.jobs.run(id).progress, Console(quiet=True))


async def test_only_the_data_has_to_be_said(serve: Serve) -> None:
    async with serve(model="flowers") as (client, _):
        answer = await client.post("/train", json={"data": "photos"})
        assert answer.status_code == 202
        job = answer.json()
        assert answer.headers["location"] == f"/train/{job['id']}"
        assert (job["state"], job["priority"], job["dataset"]["name"]) == ("queued", 0, "photos")
        expected = TrainConfig(data=Path("photos"), name="flowers", init="random")
        assert TrainConfig.model_validate(job["config"]) == expected
        assert (await client.get(answer.headers["location"])).json() == job


async def test_the_jobs_address_has_the_prefix_of_a_proxy(serve: Serve) -> None:
    async with serve(root_path="/vision") as (client, _):
        answer = await client.post("/vision/train/", json={"data": "photos"}, headers={"x-forwarded-proto": "https"})
        assert answer.headers["location"] == f"/vision/train/{answer.json()['id']}"
        assert (await client.get(answer.headers["location"])).json() == answer.json()


async def test_what_is_said_counts(serve: Serve) -> None:
    fields = {"data": "photos", "name": "other", "epochs": 3, "augment": "none", "gate": {"tolerance": 0.5}}
    async with serve() as (client, _):
        job = (await client.post("/train?priority=7", json=fields)).json()
    assert job["priority"] == 7
    assert TrainConfig.model_validate(job["config"]) == TrainConfig.model_validate({**fields, "init": "random"})


async def test_a_revision_is_settled_when_the_job_is_queued(serve: Serve, tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "datasets")
    for fingerprint in ("first", "second"):
        staged = store.staging()
        summary = Summary(created="2026-01-01T00:00:00Z", images=4, classes=2, bytes=9, fingerprint=fingerprint)
        (staged / "summary.json").write_text(summary.model_dump_json())
        (staged / "report.json").write_text("{}")
        (staged / "images").mkdir()
        store.commit(staged, "uploads")
    async with serve() as (client, _):
        for data, revision, fingerprint in (("uploads", 2, "second"), ("uploads@1", 1, "first")):
            job = (await client.post("/train", json={"data": data})).json()
            assert job["dataset"] == {"name": "uploads", "revision": revision, "fingerprint": fingerprint}
            assert job["config"]["data"] == data
        answer = await client.post("/train", json={"data": "uploads@3"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.data")
        assert "it has: 1, 2" in answer.text


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "body.data", "required"),
        ({"data": "photo"}, "body.data", "there is no dataset 'photo'; there are: photos"),
        ({"data": "../photos"}, "body.data", "a name should have 1 to 64 characters"),
        ({"data": "photos", "name": "a/b"}, "body.name", "a name should have 1 to 64 characters"),
        ({"data": "photos@0"}, "body.data", "the number of a revision, as in photos@3"),
        ({"data": "photos", "epoch": 3}, "body.epoch", "not permitted"),
        ({"data": "photos", "epochs": 0}, "body.epochs", "greater than or equal to 1"),
        ({"data": "photos", "gate": {"policy": "maybe"}}, "body.gate.policy", "'always' or 'never'"),
        ({"data": "photos", "val_fraction": 0.6, "test_fraction": 0.6}, "body", "val_fraction + test_fraction should"),
    ],
)
async def test_a_bad_request_names_the_field(serve: Serve, body: object, field: str, words: str) -> None:
    async with serve() as (client, _):
        answer = await client.post("/train", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert words in error["message"]
        assert not error["message"].startswith("Value error")
        assert (await client.get("/train")).json()["total"] == 0


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{bad", 422, "body: should be JSON, but is not at line 1, column 2: Expecting property name"),
        (b'{"data": "photos",\n "epochs": }', 422, "at line 2, column 12: Expecting value, got '}'"),
        (b'{"data": "photos"', 422, "got its end"),
        (b'{"data": "photos"} and so on', 422, "column 20: Extra data, got 'and so on'"),
        (b"", 422, "body: Field required, got nothing"),
        (b"{}", 422, "body.data: Field required, got nothing"),
        (b"[1, 2]", 422, "body: Input should be an object, got [1, 2]"),
        (b'{"data": "photos", "shuffle": null}', 422, "body.shuffle: Extra inputs are not permitted, got null"),
        (b'{"data": "photos", "gate": {"tolerance": true, "x": 1}}', 422, "body.gate.x: "),
        (b'{"data": "photos", "x": "' + b"y" * 100_000 + b'"}', 422, 'not permitted, got "yyy'),
        (
            b'{"data": "\\ud800"}',
            422,
            "body.data: a name should have 1 to 64 characters of any script",
        ),
        (b"\xff\xfe{", 400, "the body should be JSON in UTF-8; "),
        (
            b'{"data": "photos", "epochs": ' + b"9" * 5000 + b"}",
            400,
            "the body should be JSON in UTF-8; Exceeds the limit",
        ),
        (b"[" * 100_000, 400, "the body should be JSON in UTF-8; maximum recursion depth"),
    ],
)
async def test_a_wrong_body_is_answered_with_the_place_and_the_value(
    serve: Serve, body: bytes, status: int, detail: str
) -> None:
    async with serve() as (client, _):
        answer = await client.post("/train", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["code"] == {400: "malformed_body", 422: "invalid_request"}[status]
    assert detail in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 250
    assert "body.1" not in answer.text


async def test_a_rule_between_fields_does_not_show_the_whole_body(serve: Serve) -> None:
    fields = {"data": "photos", "val_fraction": 0.9, "test_fraction": 0.5}
    async with serve() as (client, _):
        problem = (await client.post("/train", json=fields)).json()
    message = "val_fraction + test_fraction should stay below 1, they are 1.4"
    assert problem["detail"] == f"body: {message}"
    assert problem["errors"] == [{"field": "body", "message": message, "got": None}]


async def test_a_folder_that_no_training_takes_is_refused_at_once(serve: Serve, photos: Path) -> None:
    for fold in ("fold1", "fold2"):
        for label in ("rose", "tulip"):
            (photos.parent / "mine" / fold / label).mkdir(parents=True)
    async with serve() as (client, _):
        answer = await client.post("/train", json={"data": "mine"})
        assert (answer.status_code, answer.json()["code"]) == (422, "dataset_unusable")
        assert answer.json()["detail"].startswith("mine can be read in two ways: 'fold1' and 'fold2' as classes")
        assert (await client.get("/train")).json()["total"] == 0


async def test_names_of_any_script(serve: Serve, photos: Path) -> None:
    for label in ("玫瑰", "郁金香"):
        (photos.parent / "我的 照片" / label).mkdir(parents=True)
    async with serve(model="花 (2024)") as (client, services):
        job = (await client.post("/train", json={"data": "我的 照片"})).json()
        assert (job["dataset"]["name"], job["config"]["name"]) == ("我的 照片", "花 (2024)")
        assert (await client.get(f"/train/{job['id']}")).json() == job
        assert await services.jobs.using("我的 照片") == {job["id"]: None}


async def test_a_form_is_not_taken_for_json(serve: Serve) -> None:
    async with serve() as (client, _):
        answer = await client.post("/train", data={'{"data": "photos"}': ""})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_body")
        assert "Content-Type: application/json" in answer.json()["detail"]


async def test_a_key_makes_one_job(serve: Serve) -> None:
    async with serve() as (client, _):

        async def post(key: str, query: str = "", **fields: object) -> httpx.Response:
            headers = {"Idempotency-Key": key}
            return await client.post(f"/train{query}", json={"data": "photos", **fields}, headers=headers)

        answers = await asyncio.gather(*(post("monday") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        for other in (await post("monday", epochs=2), await post("monday", "?priority=1")):
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        for bad in ("", "x" * 256, "a\tb"):
            refused = await post(bad)
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "header.idempotency-key")
        assert (await post("x" * 255)).status_code == 202
        assert (await client.get("/train")).json()["total"] == 2


async def test_the_list_has_pages_and_states(serve: Serve) -> None:
    async with serve() as (client, _):
        ids = [await submitted(client) for _ in range(3)]
        await client.post(f"/train/{ids[0]}/cancel")
        page = (await client.get("/train?limit=2&offset=1")).json()
        assert [job["id"] for job in page["jobs"]] == [ids[1], ids[0]]
        assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
        some = (await client.get("/train?state=cancelled&state=failed")).json()
        assert ([job["id"] for job in some["jobs"]], some["total"]) == ([ids[0]], 1)
        assert (await client.get("/train?state=lost")).status_code == 422


async def test_cancel_and_resume(serve: Serve) -> None:
    async with serve() as (client, _):
        id = await submitted(client)
        refused = await client.post(f"/train/{id}/resume")
        assert (refused.status_code, refused.json()["code"]) == (409, "job_not_resumable")
        cancelled = await client.post(f"/train/{id}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        refused = await client.post(f"/train/{id}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (409, "job_finished")
        resumed = await client.post(f"/train/{id}/resume")
        assert (resumed.status_code, resumed.json()["state"], resumed.json()["attempt"]) == (202, "queued", 2)


async def test_an_unknown_job_is_not_found_anywhere(serve: Serve) -> None:
    async with serve() as (client, _):
        for method, place in (
            *(("GET", place) for place in ("", "/events", "/log", "/report/test.json")),
            *(("POST", place) for place in ("/cancel", "/resume")),
        ):
            answer = await client.request(method, f"/train/nothing{place}")
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), place


async def test_the_log_from_any_byte_and_its_last_lines(serve: Serve) -> None:
    async with serve() as (client, services):
        id = await submitted(client)
        assert (await client.get(f"/train/{id}/log")).text == ""
        path = services.jobs.run(id).log
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"line {n} ü\n" for n in range(20_000)) + "no end")
        whole = await client.get(f"/train/{id}/log")
        assert whole.content == path.read_bytes()
        assert whole.headers["content-type"] == "text/plain; charset=utf-8"
        assert whole.headers["x-next-offset"] == str(len(whole.content))
        assert (await client.get(f"/train/{id}/log?tail=2")).text == "line 19999 ü\nno end"
        assert (await client.get(f"/train/{id}/log?offset=11")).content == path.read_bytes()[11:]
        assert (await client.get(f"/train/{id}/log?offset=999999")).text == ""


async def test_the_report_of_the_run_and_of_the_version_that_it_became(serve: Serve, tmp_path: Path) -> None:
    async with serve() as (client, services):
        id = await submitted(client)
        none = await client.get(f"/train/{id}/report/test.json")
        assert (none.status_code, none.json()["code"], none.json()["files"]) == (404, "report_not_found", [])
        run = services.jobs.run(id)
        run.report.mkdir(parents=True)
        (run.report / "test.json").write_text('{"accuracy": 1}')
        (run.report / ".hidden").write_text("")
        (run.folder / "secret.json").write_text("{}")
        answer = await client.get(f"/train/{id}/report/test.json")
        assert (answer.json(), answer.headers["content-type"]) == ({"accuracy": 1}, "application/json")
        head = await client.head(f"/train/{id}/report/test.json")
        assert (head.status_code, head.headers["etag"], head.content) == (200, answer.headers["etag"], b"")
        for name in ("..%2f..%2fsecret.json", "%2e%2e", "..%2ftest.json", ".hidden", "other.png"):
            assert (await client.get(f"/train/{id}/report/{name}")).status_code == 404, name
        assert (await client.get(f"/train/{id}/report/other.png")).json()["files"] == ["test.json"]

        repository = ModelRepository(tmp_path, "resnext50")
        version = publish(repository)
        (repository.path(version) / "report").mkdir(exist_ok=True)
        (repository.path(version) / "report" / "test.json").write_text('{"accuracy": 0.5}')
        (run.folder / "publishing.json").write_text(json.dumps({"version": version, "active": True}))
        (run.report / "test.json").unlink()
        assert (await client.get(f"/train/{id}/report/test.json")).json() == {"accuracy": 0.5}


async def test_a_job_has_the_numbers_of_its_events(serve: Serve) -> None:
    """A 3 is 3 in both, not 3.0, and a loss of 2.0 is no whole number."""
    async with serve() as (client, services):
        id = await submitted(client)
        log = progress_of(services, id)
        log.begin("training")
        log.epoch(epoch(1, loss=2.0, val_accuracy=1.0, learning_rate=0.001))
        log.step(step(7, epoch=2, loss=2.0, eta_seconds=12.5))
        await client.post(f"/train/{id}/cancel")
        job = await client.get(f"/train/{id}")
        events = await client.get(f"/train/{id}/events")
    for figures in (job.json()["progress"]["step"], *job.json()["progress"]["epochs"]):
        for name, value in figures.items():
            if value is not None:
                assert f'"{name}": {json.dumps(value)}' in events.text, name
    assert '"epoch":2,"epochs":3,"step":7,"steps":94,"loss":2.0' in job.text


async def test_events_to_the_end_and_none_after_it(serve: Serve) -> None:
    async with serve() as (client, services):
        id = await submitted(client)
        log = progress_of(services, id)
        log.begin("checking")
        log.epoch(epoch(1))
        await client.post(f"/train/{id}/cancel")
        answer = await client.get(f"/train/{id}/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
        seen = list(parsed(iter(answer.text.split("\n"))))
        assert [kind for _, kind, _ in seen] == ["phase", "epoch", "state"]
        for position, (last, _, _) in enumerate(seen, start=1):
            for question in ({"headers": {"Last-Event-ID": last}}, {"params": {"last_event_id": last}}):
                rest = await client.get(f"/train/{id}/events", **question)  # type: ignore[arg-type]  # one of two
                assert rest.status_code == (204 if position == 3 else 200)
                assert len(list(parsed(iter(rest.text.split("\n"))))) == 3 - position
        for question in ({"headers": {"Last-Event-ID": "x"}}, {"params": {"last_event_id": "3"}}):
            answer = await client.get(f"/train/{id}/events", **question)  # type: ignore[arg-type]  # one of two
            (error,) = answer.json()["errors"]
            assert (answer.status_code, error["field"].split(".")[1].replace("-", "_")) == (422, "last_event_id")


async def test_a_client_that_leaves_frees_everything(serve: Serve) -> None:
    async with serve() as (client, services):
        id = await submitted(client)
        before = len(asyncio.all_tasks())
        came, left = asyncio.Event(), asyncio.Event()

        async def send(message: Message) -> None:
            if message.get("body"):
                came.set()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        app = client._transport.app  # type: ignore[attr-defined]  # the app of this client
        assert isinstance(app, FastAPI)
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": f"/train/{id}/events",
            "query_string": b"",
            "headers": [],
            "asgi": {"spec_version": "2.3"},  # as uvicorn sends it
        }
        request = asyncio.create_task(app(scope, receive, send))
        async with asyncio.timeout(10):
            await came.wait()
            left.set()
            await request
        assert len(asyncio.all_tasks()) == before
        assert services.jobs.workers() == []


async def test_without_the_database_there_is_an_answer_all_the_same(serve: Serve) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/jobs"
    async with serve(database=url) as (client, _):
        for method, path, body in (
            ("POST", "/train", {"data": "photos"}),
            ("GET", "/train", None),
            ("GET", "/train/some/events", None),
        ):
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "jobs_unavailable")
            assert "refused" in answer.json()["detail"]  # at the time limit it would be "has not answered"
        health = (await client.get("/health")).json()["trainer"]
        assert (health["queued"], health["running"]) == (None, [])
        assert "refused" in health["error"]


async def test_a_database_that_says_nothing_holds_nobody_up(serve: Serve) -> None:
    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    released = asyncio.Event()
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with serve(database=f"postgresql://nobody@127.0.0.1:{port}/jobs") as (client, _):
        health = await client.get("/health")
        assert "has not answered within 0.5 s" in health.json()["trainer"]["error"]
        async with asyncio.timeout(6 * LIMIT_S):  # asked one after the other they would take 8 * LIMIT_S
            answers = await asyncio.gather(*(client.get("/train") for _ in range(8)))
        assert {answer.status_code for answer in answers} == {503}
        assert (await client.get("/models")).status_code == 200  # other work in threads is not held up
        released.set()
        silent.close()


async def test_health_counts_the_jobs(serve: Serve) -> None:
    async with serve() as (client, services):
        await submitted(client)
        await submitted(client)
        assert len(await services.job_states.all()) == 2
        health = (await client.get("/health")).json()["trainer"]
        assert health == {"workers": [], "queued": 2, "running": [], "error": None}


def test_a_database_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/jobs?connect_timeout=60"
        with service(tmp_path, database=url) as (process, port):
            assert httpx.get(f"http://127.0.0.1:{port}/train", timeout=30).status_code == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_openapi_shows_every_field_with_its_description_and_default() -> None:
    schemas = create_app(Settings(provider="cpu")).openapi()["components"]["schemas"]
    fields = schemas["TrainRequest"]["properties"]
    assert set(fields) == set(TrainConfig.model_fields)
    assert schemas["TrainRequest"]["required"] == ["data"]
    for name, field in fields.items():
        described = "description" in field or "$ref" in str(field)
        assert described, name
        optional = ("data", "name", "epochs", "recipe", "resize", "time_budget")
        assert name in optional or "default" in field or "$ref" in field, name
    assert "photos@3" in fields["data"]["description"]


def test_a_job_is_followed_through_the_death_of_its_worker_and_the_drain_of_the_service(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "engine")
    engine.hold("training", "middle")
    engine.hold("gating", "start")
    places = engine.settings | {"drain_timeout": "60"}  # longer than the test waits for the end
    try:
        with (
            service(Path(places.pop("models")), **places) as (process, port),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            id = client.post("/train", json={"data": "photos"}).json()["id"]
            with client.stream("GET", f"/train/{id}/events") as stream:
                events = parsed(stream.iter_lines())
                seen = [next(events)]
                assert seen[0][2]["state"] == "queued"
                worker = engine.worker()
                until_kind(events, seen, lambda event: event[2].get("phase") == "training")
                engine.held("training", "middle")
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
                with engine.jobs.run(id).progress.open("ab") as file:
                    file.write(b'{"event": "st')  # a kill may leave this
            with client.stream("GET", f"/train/{id}/events", headers={"Last-Event-ID": seen[-1][0]}) as stream:
                events = parsed(stream.iter_lines())
                engine.release("training", "middle")
                ProgressLog(engine.jobs.run(id).progress, Console(quiet=True))  # repairs it, as the next phase does
                engine.worker()
                until_kind(events, seen, lambda event: event[2].get("phase") == "verifying")
                engine.held("gating", "start")
                assert client.get("/health").json()["trainer"]["running"] == [id]
                process.send_signal(signal.SIGTERM)
                seen += list(events)  # a stream that uvicorn cuts off would raise
                assert process.wait(30) == 0
        with (
            service(Path(engine.settings["models"]), **places) as (_, port),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            engine.release("gating", "start")
            address, last = f"/train/{id}/events", {"Last-Event-ID": seen[-1][0]}
            with client.stream("GET", address, headers=last) as stream:
                seen += list(parsed(stream.iter_lines()))
            assert client.get(address, headers={"Last-Event-ID": seen[-1][0]}).status_code == 204
            lines = engine.jobs.run(id).progress.read_text().splitlines()
            assert [data for _, kind, data in seen if kind != "state"] == [json.loads(line) for line in lines]
            states = [data["state"] for _, kind, data in seen if kind == "state"]
            assert states == ["queued", "running", "succeeded"]
            assert len({event_id for event_id, _, _ in seen}) == len(seen)
            until(lambda: client.get("/health").json()["trainer"]["running"] == [])
    finally:
        engine.close()


def until_kind(events: Iterator[Event], seen: list[Event], wanted: Any) -> None:  # Any: a predicate
    """Reads events up to the first that is wanted."""
    for event in events:
        seen.append(event)
        if wanted(event):
            return
    raise AssertionError("the stream ended without the event")


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        ({"method": "head"}, "body.method", "method head needs weights to start from, and init is random"),
        ({"init": "weights:none"}, "body.init", "there are no weights 'none' in"),
        ({"init": "live"}, "body.init", "init names model 'flowers', which has no active version"),
        ({"init": "flowers@7"}, "body.init", "model 'flowers' has no version 7"),
        ({"resize": 256}, "body", "resize goes with resize_mode crop"),
    ],
)
async def test_what_a_training_cannot_start_from_is_refused_at_once(
    serve: Serve, fields: dict[str, object], place: str, message: str
) -> None:
    async with serve(model="flowers") as (client, _):
        answer = await client.post("/train", json={"data": "photos", **fields})
    assert answer.status_code == 422
    assert message in answer.text
    assert answer.json()["errors"][0]["field"] == place


async def test_a_job_that_cannot_be_read_is_one_such_job(serve: Serve) -> None:
    async with serve() as (client, services):
        good, bad, running = [await submitted(client) for _ in range(3)]
        spoil(services.settings, bad, serialization="py_pickle")
        spoil(services.settings, running, serialization="py_pickle", status="PENDING")
        page = (await client.get("/train")).json()
        assert [job["id"] for job in page["jobs"]] == [good]
        assert [job["id"] for job in page["unreadable"]] == [running, bad]
        assert page["total"] == 3
        for path in (f"/train/{bad}", f"/train/{bad}/report/curves.png"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (409, "job_damaged")
            assert bad in answer.json()["detail"]
        assert (await client.get(f"/train/{bad}/log")).status_code == 200
        assert 'resnext_jobs{state="running"} 1.0' in (await client.get("/metrics")).text
        assert (await client.post(f"/train/{bad}/cancel")).json()["code"] == "job_damaged"
        assert (await client.get("/train?state=cancelled")).json()["unreadable"][0]["id"] == bad
