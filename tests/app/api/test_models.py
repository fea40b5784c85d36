import pytest

from tests.app.conftest import Serve
from tests.app.network import LABELS, publish
from tests.damage import SOME, damage
from training.contract.manifest import MANIFEST_FILE, MODEL_FILE
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio


async def test_list(serve: Serve, repository: ModelRepository) -> None:
    for seed in range(3):
        publish(repository, seed, activate=seed == 1)
    (repository.path(3) / MANIFEST_FILE).write_text("{")
    async with serve() as (client, _):
        body = (await client.get("/models")).json()
    assert (body["name"], body["live"], body["active"]) == ("resnext50", 2, 2)
    first, second, third = body["versions"]
    assert [v["version"] for v in body["versions"]] == [1, 2, 3]
    assert [v["live"] for v in body["versions"]] == [False, True, False]
    assert first["metrics"]["test"]["accuracy"] == 0.9
    assert first["variants"]["fp32"]["images_per_second"] == 100
    assert second["parity"]["top1_equal"] == 4
    assert second["created"]
    assert third["error"].startswith("resnext50/3/manifest.json is not a valid manifest")
    assert first["error"] is None


async def test_list_says_why_a_version_was_taken_back(serve: Serve, repository: ModelRepository) -> None:
    for seed in range(2):
        publish(repository, seed)
    async with serve() as (client, _):
        repository.roll_back(bad={2: "golden check"})
        first, second = (await client.get("/models")).json()["versions"]
        assert (first["failure"], second["failure"]["reason"]) == (None, "golden check")
        assert second["failure"]["time"]
        await client.post("/models/2/activate")
        assert (await client.get("/models")).json()["versions"][1]["failure"] is None
        (repository.folder / "FAILURES").write_text("x")
        assert (await client.get("/models")).json()["live"] == 2


async def test_list_of_an_empty_repository(serve: Serve) -> None:
    async with serve() as (client, _):
        assert (await client.get("/models")).json() == {
            "name": "resnext50",
            "live": None,
            "active": None,
            "error": None,
            "versions": [],
        }


async def test_manifest(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        manifest = (await client.get("/models/1")).json()
        missing = await client.get("/models/2")
        nonsense = await client.get("/models/first")
    assert manifest["labels"] == LABELS
    assert (missing.status_code, missing.json()["code"]) == (404, "version_not_found")
    assert (nonsense.status_code, nonsense.json()["code"]) == (422, "invalid_request")


async def test_activate_and_roll_back(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve() as (client, _):
        for version in (2, 1):
            answer = await client.post(f"/models/{version}/activate")
            assert (answer.status_code, answer.json()) == (200, {"name": "resnext50", "version": version})
            assert (await client.get("/models")).json()["live"] == version
            assert repository.active() == version
        missing = await client.post("/models/9/activate")
    assert (missing.status_code, missing.json()["code"]) == (404, "version_not_found")


async def test_activate_of_an_unusable_version(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    (repository.path(publish(repository, 2, activate=False)) / MODEL_FILE).write_bytes(b"changed")
    async with serve() as (client, _):
        answer = await client.post("/models/2/activate")
        assert (await client.get("/models")).json()["live"] == 1
    assert (answer.status_code, answer.json()["code"]) == (409, "version_unusable")
    assert "SHA-256" in answer.json()["detail"]
    assert repository.active() == 1


async def test_delete(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve() as (client, _):
        live = await client.delete("/models/1")
        gone = await client.delete("/models/2")
        again = await client.delete("/models/2")
    assert (live.status_code, live.json()["code"]) == (409, "version_live")
    assert (gone.status_code, gone.content) == (204, b"")
    assert again.status_code == 404
    assert repository.versions() == [1]


async def test_a_repository_that_can_only_be_read_says_so(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve() as (client, _):
        lock = repository.folder / ".lock"
        lock.unlink()
        lock.mkdir()  # the tests may run as root, whom no permission stops
        for answer in (await client.post("/models/2/activate"), await client.delete("/models/2")):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert "the model repository cannot be written" in answer.json()["detail"]
        assert (await client.get("/health")).json()["model"]["version"] == 1


@pytest.mark.parametrize("file", ["ACTIVE", "HISTORY", "FAILURES"])
async def test_an_activation_mends_what_is_damaged(serve: Serve, repository: ModelRepository, file: str) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve() as (client, services):
        for kind in SOME:
            damage(repository.folder / file, kind)
            await services.serving.refresh()
            listed = await client.get("/models")
            assert [version["version"] for version in listed.json()["versions"]] == [1, 2]
            assert (f"resnext50/{file} " in (listed.json()["error"] or "")) == (file != "HISTORY")
            assert (await client.get("/models/2")).status_code == 200
            refused = await client.delete("/models/2")
            said = (refused.status_code, refused.json()["code"])
            assert said in ((409, "repository_damaged"), (503, "repository_unreadable"))
            assert refused.json()["detail"].startswith(f"resnext50/{file} ")
            assert (await client.post("/models/1/activate")).status_code == 200
            assert (await client.get("/models")).json()["error"] is None
            assert repository.active() == 1
        assert (await client.delete("/models/2")).status_code == 204


async def test_a_version_that_cannot_be_read_is_one_such_version(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    publish(repository, 2, activate=False)
    async with serve() as (client, _):
        for kind in SOME:
            damage(repository.path(2) / MANIFEST_FILE, kind)
            good, bad = (await client.get("/models")).json()["versions"]
            assert (good["error"], good["live"]) == (None, True)
            assert bad["error"].startswith(f"resnext50/2/{MANIFEST_FILE} ")
            for answer in (await client.get("/models/2"), await client.post("/models/2/activate")):
                assert (answer.status_code, answer.json()["code"]) == (409, "version_unusable")
        assert repository.active() == 1


async def test_a_model_folder_that_cannot_be_read_is_said(serve: Serve, repository: ModelRepository) -> None:
    publish(repository, 1)
    async with serve() as (client, _):
        damage(repository.folder, "a link to itself")
        for method, path in (("GET", ""), ("GET", "/1"), ("POST", "/1/activate"), ("DELETE", "/1")):
            answer = await client.request(method, f"/models{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, "repository_unreadable")
            assert str(repository.root) not in answer.json()["detail"]
        assert (await client.get("/health")).json()["model"]["version"] == 1
