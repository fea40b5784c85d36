import asyncio
import io
import os
import signal
import socket
import subprocess
import tarfile
import unicodedata
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from app.trainer.datasets import storage_errors
from tests.app.conftest import Serve
from tests.process import service, until
from tests.training.engine import Engine
from training.config import TrainConfig
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.errors import StorageFull
from training.jobs.job import DatasetRef

pytestmark = pytest.mark.anyio

PHOTO = Image.fromarray(load_sample_image("flower.jpg"))


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    left, top = number % 30 * 18, number // 30 * 16
    PHOTO.crop((left, top, left + 64, top + 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def photos(count: int = 6, prefix: str = "", first: int = 0) -> dict[str, bytes]:
    return {
        f"{prefix}{label}/{i}.jpg": photo(first + rank * count + i)
        for rank, label in enumerate(("rose", "tulip"))
        for i in range(count)
    }


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o4777
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def left_over(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob(".*") if path.name != ".lock")


def mount(root: Path, files: Mapping[str, bytes], name: str = "mine") -> Path:
    for path, data in files.items():
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_bytes(data)
    return root / name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


async def refused(serve: Serve, data: bytes, **settings: object) -> tuple[int, str, str]:
    async with serve(**settings) as (client, services):
        answer = await client.put("/datasets/photos", content=data)
        assert (await client.get("/datasets")).json() == {"datasets": []}
        assert left_over(services.datasets.root) == []
    return answer.status_code, answer.json()["code"], answer.json()["detail"]


@pytest.mark.parametrize("prefix", ["", "flowers/", "outer/flowers/"])
async def test_upload(serve: Serve, root: Path, prefix: str) -> None:
    junk = {
        "rose/notes.txt": b"no image",
        "rose/cut.jpg": photo(0)[:400],
        "tulip/more.zip": zipped({"a.jpg": photo(0)}),
    }
    silent = {"README.md": b"about", "rose/.DS_Store": b"clutter", "__MACOSX/rose/._1.jpg": b"clutter"}
    archive = {prefix + name: data for name, data in {**photos(), **junk, **silent}.items()}
    async with serve() as (client, services):
        answer = await client.put("/datasets/photos", content=chunked(tarred(archive)))
        assert (answer.status_code, answer.headers["location"]) == (201, "/datasets/photos")
        body = answer.json()
        assert (await client.get("/datasets/photos")).json() == body
        images = services.datasets.resolve("photos").folder
        listed = (await client.get("/datasets")).json()["datasets"]
    assert files_of(images) == photos()
    assert {bad["path"]: bad["code"] for bad in body["report"]["unreadable"]} == {
        "rose/cut.jpg": "corrupt_image",
        "rose/notes.txt": "not_an_image",
        "tulip/more.zip": "not_an_image",
    }
    size = sum(map(len, photos().values()))
    assert (body["name"], body["source"], body["revision"]) == ("photos", "uploaded", 1)
    assert (body["images"], body["classes"], body["bytes"], body["error"]) == (12, 2, size, None)
    assert listed == [{name: value for name, value in body.items() if name != "report"}]
    assert left_over(root) == []
    assert {path.stat().st_mode & 0o7777 for path in images.rglob("*.jpg")} == {0o644}
    assert {path.stat().st_mode & 0o7777 for path in [images, images.parent, images.parent.parent]} == {0o755}


async def test_the_report_is_that_of_the_command(serve: Serve) -> None:
    async with serve() as (client, services):
        report = (await client.put("/datasets/photos", content=zipped(photos(20)))).json()["report"]
        folder = services.datasets.resolve("photos").folder
    config = TrainConfig(data=folder)
    dataset = list_dataset(folder, config.val_fraction, config.test_fraction, config.seed)
    expected, _ = check_dataset(dataset, config.preprocessing)
    assert report == {**expected.model_dump(), "folder": "photos"}


async def test_splits_are_kept(serve: Serve) -> None:
    archive = {
        f"{s}/{name}": data
        for i, s in enumerate(("train", "val", "test"))
        for name, data in photos(2, "", i * 4).items()
    }
    async with serve() as (client, _):
        body = (await client.put("/datasets/photos", content=zipped(archive))).json()
    assert body["report"]["images"] == {"train": 4, "val": 4, "test": 4}


@pytest.mark.parametrize("prefix", ["", "data/"])
async def test_a_lone_train_is_no_wrapping_folder_and_is_split(serve: Serve, prefix: str) -> None:
    archive = zipped(photos(6, f"{prefix}train/"))
    async with serve() as (client, services):
        report = (await client.put("/datasets/photos", content=archive)).json()["report"]
        kept = files_of(services.datasets.resolve("photos").folder)
    assert report["images"] == {"train": 8, "val": 2, "test": 2}
    assert report["dealt"] == ["val", "test"]
    assert kept == photos(6, "train/")


async def test_what_lies_around_the_only_folder_is_said(serve: Serve) -> None:
    around = {"README.txt": b"about", "LICENSE": b"yours", "flowers/cover.jpg": photo(99)}
    async with serve() as (client, services):
        answer = await client.put("/datasets/images", content=zipped({**photos(6, "flowers/"), **around}))
        kept = files_of(services.datasets.resolve("images").folder)
    report = answer.json()["report"]
    assert (answer.status_code, report["root"], kept) == (201, "flowers", photos())
    assert report["passed_over"] == ["LICENSE", "README.txt", "flowers/cover.jpg"]


async def test_splits_that_are_not_known_are_refused(serve: Serve) -> None:
    archive = {**photos(6, "fold1/"), **photos(6, "fold2/", 20)}
    status, code, detail = await refused(serve, zipped(archive))
    assert (status, code) == (422, "dataset_unusable")
    assert detail.startswith("photos can be read in two ways: 'fold1' and 'fold2' as classes")


async def test_what_is_kept_of_an_upload_reads_as_it_did(serve: Serve) -> None:
    """Files that are no images are not kept, although they may have shown which folders are classes."""
    archive = {**photos(6, "one/"), **photos(6, "two/", 20), "one/broken.jpg": b"broken", "two/broken.jpg": b"broken"}
    assert "can be read in two ways" in (await refused(serve, zipped(archive)))[2]


async def test_names_that_may_be_wrong_are_noted(serve: Serve) -> None:
    archive = zipped(photos()).replace(b"tulip/", b"caf\x82s/")
    async with serve() as (client, _):
        report = (await client.put("/datasets/photos", content=archive)).json()["report"]
    assert report["labels"] == ["cafés", "rose"]
    assert "read as code page 437: 'cafés'" in report["notes"][0]


async def test_a_second_upload_is_a_new_revision(serve: Serve, root: Path) -> None:
    async with serve() as (client, services):
        await client.put("/datasets/photos", content=zipped(photos()))
        answer = await client.put("/datasets/photos", content=zipped(photos(7)))
        assert (answer.status_code, answer.json()["revision"], answer.json()["images"]) == (200, 2, 14)
        assert services.datasets.revisions("photos") == [2]
    assert left_over(root) == []


async def test_two_uploads_at_once_are_two_revisions(serve: Serve) -> None:
    async with serve() as (client, services):
        answers = await asyncio.gather(*(client.put("/datasets/photos", content=zipped(photos(n))) for n in (5, 6)))
        assert sorted(answer.json()["revision"] for answer in answers) == [1, 2]
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        last = next(answer.json() for answer in answers if answer.json()["revision"] == 2)
        assert (await client.get("/datasets/photos")).json() == last
        assert services.datasets.current("photos") == 2


@pytest.mark.parametrize(
    ("data", "status", "code", "detail"),
    [
        (b"", 422, "archive_unusable", "it is empty"),
        (photo(0), 422, "archive_unusable", "should be a zip or tar archive as it is"),
        (zipped({**photos(), "../x.jpg": b"x"}), 422, "archive_unusable", "'../x.jpg' does not"),
        (tarred(photos())[:2000], 422, "archive_unusable", "damaged or cut short"),
        (zipped({}), 422, "dataset_unusable", "photos should hold at least two class folders, it has no folder"),
        (zipped({"rose/1.jpg": photo(1)}), 422, "dataset_unusable", "photos should hold at least two class"),
        (zipped(photos(2)), 422, "dataset_unusable", "class 'rose' should have at least 3 different readable images"),
        (
            zipped({**photos(), "iris/1.jpg": b"x"}),
            *(422, "dataset_unusable", "it has 0 in 1 files: 1 is not_an_image (iris/1.jpg: the file is in no known"),
        ),
    ],
)
async def test_an_unusable_upload_is_refused_with_the_reason(
    serve: Serve, data: bytes, status: int, code: str, detail: str
) -> None:
    answer = await refused(serve, data)
    assert answer[:2] == (status, code)
    assert detail in answer[2]
    assert "staging" not in answer[2]


@pytest.mark.parametrize(
    ("setting", "code", "detail"),
    [
        ({"max_dataset_files": 14}, "archive_too_large", "at most 14 files and folders"),
        ({"max_dataset_bytes": 9000}, "archive_too_large", "at most 9000 bytes"),
        ({"max_dataset_upload": 9000}, "upload_too_large", "at most 9000 bytes"),
    ],
)
async def test_limits_are_settings(serve: Serve, setting: dict[str, int], code: str, detail: str) -> None:
    status, came, message = await refused(serve, zipped(photos(10)), **setting)
    assert (status, came) == (413, code)
    assert detail in message


async def test_the_limit_on_pixels_is_that_of_requests(serve: Serve, root: Path) -> None:
    large = io.BytesIO()
    Image.new("RGB", (200, 200), "red").save(large, "PNG")
    mount(root, {**photos(), "rose/large.png": large.getvalue()})
    for limit, code in [(200 * 200 - 1, "image_too_large"), (200 * 200, None)]:
        async with serve(max_pixels=limit) as (client, _):
            uploaded = await client.put(
                "/datasets/photos", content=zipped({**photos(), "rose/1.png": large.getvalue()})
            )
            mounted = await client.get("/datasets/mine")
        for answer in (uploaded, mounted):
            codes = [bad["code"] for bad in answer.json()["report"]["unreadable"]]
            assert codes == ([code] if code else [])


async def test_an_upload_has_a_limit_of_its_own(serve: Serve) -> None:
    async with serve(max_upload=1000) as (client, _):
        assert (await client.put("/datasets/photos", content=zipped(photos()))).status_code == 201


@pytest.mark.parametrize(
    "name", ["CURRENT", ".hidden", "a%20", "a%0ab", "a@1", "-a", "lost+found", "x" * 65, "猫" * 65, "%2e%2e"]
)
async def test_bad_names_are_refused(serve: Serve, name: str) -> None:
    async with serve() as (client, _):
        answer = await client.put(f"/datasets/{name}", content=zipped(photos()))
    assert answer.status_code in (404, 422)
    assert answer.json()["code"] in ("not_found", "invalid_request")


@pytest.mark.parametrize("name", ["照片", "My Photos (2024)", "100% cats & dogs?", "žluťoučký"])
async def test_names_of_any_script_are_taken(serve: Serve, name: str) -> None:
    url = f"/datasets/{quote(name, safe='')}"
    async with serve() as (client, _):
        answer = await client.put(url, content=zipped(photos()))
        assert (answer.status_code, answer.json()["name"]) == (201, name)
        assert unquote(answer.headers["location"]) == f"/datasets/{name}"
        assert [one["name"] for one in (await client.get("/datasets")).json()["datasets"]] == [name]
        assert (await client.get(answer.headers["location"])).json() == answer.json()
        decomposed = quote(unicodedata.normalize("NFD", name), safe="")
        assert (await client.get(f"/datasets/{decomposed}")).json() == answer.json()
        assert (await client.delete(url)).status_code == 204


async def test_a_mounted_folder_is_listed_whatever_it_is_called(serve: Serve, root: Path) -> None:
    for name in ("My Photos", "cats@home", "lost+found"):
        mount(root, photos(), name)
    async with serve() as (client, _):
        listed = (await client.get("/datasets")).json()["datasets"]
        assert (await client.get("/datasets/My%20Photos")).json()["images"] == 12
        refusal = await client.get("/datasets/cats@home")
    assert [(one["name"], one["error"] is None) for one in listed] == [("My Photos", True), ("cats@home", False)]
    assert "rename it: a name should have 1 to 64 characters" in listed[1]["error"]
    assert "a name should have 1 to 64 characters" in refusal.text


async def test_a_mounted_dataset_is_listed_read_and_left_alone(serve: Serve, root: Path) -> None:
    files = {**photos(), "rose/notes.txt": b"no image"}
    folder = mount(root, files)
    async with serve() as (client, _):
        listed = (await client.get("/datasets")).json()["datasets"]
        body = (await client.get("/datasets/mine")).json()
        changes = [await client.put("/datasets/mine", content=zipped(photos())), await client.delete("/datasets/mine")]
    assert [(one["name"], one["source"], one["revision"]) for one in listed] == [("mine", "mounted", None)]
    assert (body["source"], body["images"], body["classes"], body["created"]) == ("mounted", 12, 2, None)
    assert body["report"]["folder"] == "mine"
    assert [bad["path"] for bad in body["report"]["unreadable"]] == ["rose/notes.txt"]
    assert [(answer.status_code, answer.json()["code"]) for answer in changes] == [(409, "dataset_mounted")] * 2
    assert files_of(folder) == files


async def test_a_mounted_dataset_that_can_not_be_trained_on_says_why(serve: Serve, root: Path) -> None:
    mount(root, {"rose/1.jpg": photo(1)})
    async with serve() as (client, _):
        body = (await client.get("/datasets/mine")).json()
    assert body["error"] == "mine should hold at least two class folders, it has only 'rose'"
    assert (body["report"], body["images"]) == (None, None)


async def test_delete(serve: Serve, root: Path) -> None:
    async with serve() as (client, _):
        await client.put("/datasets/photos", content=zipped(photos()))
        gone = await client.delete("/datasets/photos")
        again = await client.delete("/datasets/photos")
        missing = await client.get("/datasets/photos")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (again, missing):
        assert (answer.status_code, answer.json()["code"]) == (404, "dataset_not_found")
    assert files_of(root).keys() <= {".lock"}


async def test_what_a_job_trains_on_stays(serve: Serve, tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path)
    async with serve() as (client, services):
        for count in (5, 6):
            await client.put("/datasets/photos", content=zipped(photos(count)))
            await services.jobs.submit(config, DatasetRef(name="photos", revision=services.datasets.current("photos")))
        await client.put("/datasets/photos", content=zipped(photos(7)))
        await client.put("/datasets/photos", content=zipped(photos(8)))
        assert services.datasets.revisions("photos") == [1, 2, 4]
        refusal = await client.delete("/datasets/photos")
        jobs = [job.id for job in (await services.jobs.list())[0]]
        assert (refusal.status_code, refusal.json()["code"]) == (409, "dataset_in_use")
        assert sorted(refusal.json()["jobs"]) == sorted(jobs)
        for job in jobs:
            assert job in refusal.json()["detail"]
            await services.jobs.cancel(job)
        assert (await client.delete("/datasets/photos")).status_code == 204


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


async def test_a_dataset_is_replaced_and_deleted_after_its_jobs_have_ended(serve: Serve, engine: Engine) -> None:
    async with serve() as (client, services):
        await client.put("/datasets/flowers", content=zipped(photos()))
        for policy in ("always", "never"):
            config = TrainConfig.model_validate({"data": "flowers", "gate": {"policy": policy}})
            await services.jobs.submit(config, DatasetRef(name="flowers", revision=1))
        engine.worker(kind="fast")
        for job in (await services.jobs.list())[0]:
            rejected = job.config.gate.policy == "never"
            await asyncio.to_thread(engine.ends, job.id, "rejected" if rejected else "succeeded")
        assert (await client.put("/datasets/flowers", content=zipped(photos(7)))).status_code == 200
        assert services.datasets.revisions("flowers") == [2]
        assert (await client.delete("/datasets/flowers")).status_code == 204


async def test_without_the_jobs_database_nothing_is_deleted(serve: Serve, tmp_path: Path, root: Path) -> None:
    (tmp_path / "file").touch()
    async with serve(state=tmp_path / "file" / "state") as (client, services):
        for status in (201, 200):
            assert (await client.put("/datasets/photos", content=zipped(photos()))).status_code == status
        answer = await client.delete("/datasets/photos")
        assert (answer.status_code, answer.json()["code"]) == (503, "jobs_unavailable")
        assert services.datasets.revisions("photos") == [1, 2]
    assert left_over(root) == []


async def test_a_folder_that_can_not_be_written(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with serve(datasets=tmp_path / "file" / "datasets") as (client, _):
        answer = await client.put("/datasets/photos", content=zipped(photos()))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.json()["detail"] == "the datasets folder cannot be used: Not a directory"


def test_a_full_disk_is_reported() -> None:
    with pytest.raises(StorageFull, match="the disk of the datasets folder is full"), storage_errors():
        Path("/dev/full").write_text("x")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], check=False).returncode:
        pytest.skip("only root can make a disk to fill")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("unpacked", [True, False])
async def test_a_disk_that_fills_up(serve: Serve, root: Path, unpacked: bool) -> None:
    noise = np.random.default_rng(0).bytes(500_000)
    archive = zipped({**photos(), "rose/large.bmp": bytes(500_000) if unpacked else noise})
    with small_disk(root):
        async with serve() as (client, _):
            answer = await client.put("/datasets/photos", content=archive)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert files_of(root) == {}
        assert left_over(root) == []


def intakes(root: Path) -> list[int]:
    """Returns the ids of the processes that unpack below `root`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if "training.datasets.intake" in command and str(root) in command:
            found.append(int(folder.name))
    return found


def test_a_look_ends_when_its_client_leaves(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    folder = mount(root, photos())
    for i in range(3000):
        (folder / "rose" / f"more{i}.jpg").symlink_to("0.jpg")
    with service(tmp_path, datasets=str(root), state=str(tmp_path / "state")) as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /datasets/mine HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: bool(intakes(root)))
        until(lambda: not intakes(root), seconds=2)


def test_a_look_does_not_hold_up_uploads(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    mount(root, photos(), "mine")
    with service(tmp_path, datasets=str(root), state=str(tmp_path / "state")) as (_, port):
        url = f"http://127.0.0.1:{port}/datasets"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /datasets/mine HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            until(lambda: bool(intakes(root)))
            (process,) = intakes(root)
            os.kill(process, signal.SIGSTOP)
            assert httpx.put(f"{url}/photos", content=zipped(photos()), timeout=60).status_code == 201
            os.kill(process, signal.SIGCONT)
            assert connection.makefile().read().startswith("HTTP/1.1 200")


async def test_a_pipe_in_a_mounted_dataset_is_listed(serve: Serve, root: Path) -> None:
    folder = mount(root, photos())
    os.mkfifo(root / ".pipe")
    (folder / "rose/x.jpg").symlink_to(root / ".pipe")
    async with serve() as (client, _):
        report = (await client.get("/datasets/mine")).json()["report"]
    (bad,) = report["unreadable"]
    assert (bad["path"], bad["message"]) == ("rose/x.jpg", "it should be a file, it is a link to a named pipe")


@pytest.mark.parametrize("leaves", ["client", "service"])
def test_an_intake_that_hangs_ends_with_its_client_and_with_the_service(tmp_path: Path, leaves: str) -> None:
    root = tmp_path / "datasets"
    with service(tmp_path, datasets=str(root), state=str(tmp_path / "state")) as (process, port):
        with upload(port, zipped(photos())) as connection:
            until(lambda: bool(intakes(root)))
            os.kill(intakes(root)[0], signal.SIGSTOP)  # it hangs
            if leaves == "service":
                process.send_signal(signal.SIGTERM)
                answer = connection.makefile().read()
                assert answer.startswith("HTTP/1.1 503")
                assert "the service is shutting down; upload it again" in answer
                assert process.wait(20) == 0
        until(lambda: not intakes(root) and not left_over(root))


async def test_an_intake_has_a_limit_in_seconds(serve: Serve, root: Path) -> None:
    mount(root, photos())
    async with serve(intake_timeout=0.05) as (client, _):
        for answer in (await client.put("/datasets/a", content=zipped(photos())), await client.get("/datasets/mine")):
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            assert answer.json()["detail"] == "unpacking and checking may take 0.05 s, and took longer"
    assert intakes(root) == []
    assert left_over(root) == []


async def test_an_intake_waits_for_its_turn_for_a_while_and_the_rest_does_not(serve: Serve, root: Path) -> None:
    mount(root, photos())
    async with serve() as (client, services):
        services.intake._turn_seconds = 0.05
        await client.put("/datasets/photos", content=zipped(photos()))
        async with services.intake._uploading, services.intake._looking:
            for answer in (
                await client.put("/datasets/a", content=zipped(photos())),
                await client.get("/datasets/mine"),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "intake_busy")
                assert answer.headers["retry-after"] == "1"
            assert (await client.get("/datasets")).status_code == 200
            assert (await client.get("/datasets/photos")).status_code == 200
        assert (await client.get("/datasets/mine")).status_code == 200
    assert left_over(root) == []


def test_a_process_that_dies_harms_one_upload(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    with service(tmp_path, datasets=str(root), state=str(tmp_path / "state")) as (_, port):
        url = f"http://127.0.0.1:{port}/datasets/photos"
        with upload(port, zipped(photos(200))) as connection:
            until(lambda: bool(intakes(root)))
            os.kill(intakes(root)[0], signal.SIGKILL)
            answer = connection.makefile().read()
        assert answer.startswith("HTTP/1.1 500")
        assert "killed by SIGKILL: out of memory?" in answer
        assert left_over(root) == []
        assert httpx.put(url, content=zipped(photos()), timeout=60).status_code == 201


def test_the_process_ends_with_the_service(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    running = service(tmp_path, datasets=str(root), state=str(tmp_path / "state"))
    with running as (process, port), upload(port, zipped(photos(400))):
        until(lambda: bool(intakes(root)))
        process.kill()
        until(lambda: not intakes(root))
    assert list(root.rglob("report.json")) == []  # the check was broken off


def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    archive = zipped(photos(200))
    with service(tmp_path, datasets=str(root), state=str(tmp_path / "state")) as (_, port):
        with upload(port, archive[: len(archive) // 2], announced=len(archive)):
            until(lambda: bool(left_over(root)))
        until(lambda: not left_over(root))
        assert httpx.get(f"http://127.0.0.1:{port}/datasets", timeout=10).json() == {"datasets": []}


@contextmanager
def upload(port: int, data: bytes, announced: int | None = None) -> Iterator[socket.socket]:
    """Opens a connection with an upload under way. Closing it is a client that leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        length = len(data) if announced is None else announced
        head = f"PUT /datasets/photos HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + data)
        yield connection
