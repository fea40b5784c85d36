import asyncio
import io
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.api.predict import best_classes
from app.services import Services
from tests.app.conftest import Serve
from tests.app.network import LABELS, SIZE, encoded, network, publish, random_images, reference
from tests.training.images.pictures import DATA, jpeg_of_scans, tiff
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

IMAGES = random_images(6, seed=3)
EXPECTED = reference(network(0), IMAGES)
Part = tuple[str, tuple[str | None, bytes]]


def part(content: bytes, name: str = "a.png", field: str = "file") -> Part:
    return (field, (name, content))


def good(number: int) -> Part:
    return part(encoded(IMAGES[number]), f"{number}.png")


def assert_is(result: dict[str, Any], number: int) -> None:  # Any: JSON
    """Asserts that the result is what onnx's reference implementation gives for image `number`."""
    assert result["filename"] == f"{number}.png"
    order = np.argsort(-EXPECTED[number], kind="stable")[:5].tolist()
    assert [p["index"] for p in result["predictions"]] == order
    assert [p["label"] for p in result["predictions"]] == [LABELS[i] for i in order]
    np.testing.assert_allclose([p["probability"] for p in result["predictions"]], EXPECTED[number][order], atol=1e-5)


async def test_multipart_in_upload_order(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post("/predict", files=[good(n) for n in (2, 0, 1, 5, 4, 3)])
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"model", "results"}
    assert body["model"] == {"name": "resnext50", "version": 1}
    for result, number in zip(body["results"], (2, 0, 1, 5, 4, 3), strict=True):
        assert result.keys() == {"filename", "predictions"}
        assert_is(result, number)


@pytest.mark.parametrize(
    "media_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", None]
)
async def test_raw_body(serve: Serve, repository: ModelRepository, media_type: str | None) -> None:
    publish(repository)
    headers = {"content-type": media_type} if media_type else {}
    async with serve() as (client, _):
        answer = await client.post("/predict", content=encoded(IMAGES[0]), headers=headers)
    (result,) = answer.json()["results"]
    assert result["filename"] is None
    assert_is(result | {"filename": "0.png"}, 0)


@pytest.mark.parametrize(("top_k", "classes"), [("", 5), ("?top_k=1", 1), ("?top_k=7", 7), ("?top_k=1000", 7)])
async def test_top_k(serve: Serve, repository: ModelRepository, top_k: str, classes: int) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post(f"/predict{top_k}", files=[good(0)])
    assert len(answer.json()["results"][0]["predictions"]) == classes


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", "", "²", "9" * 5000])
async def test_bad_top_k(serve: Serve, repository: ModelRepository, top_k: str) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post(f"/predict?top_k={top_k}", files=[good(0)])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "query.top_k" in answer.json()["detail"]


async def test_server_timing(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        timing = (await client.post("/predict", files=[good(0), good(1)])).headers["server-timing"]
    stages = dict(item.split(";dur=") for item in timing.split(", "))
    assert list(stages) == ["decode", "queue", "inference"]
    assert float(stages["decode"]) > 0
    assert float(stages["inference"]) > 0


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims this size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "empty": (b"", "empty_file"),
    "text as jpg": (b"this is no photograph, whatever its name says", "not_an_image"),
    "truncated jpeg": (encoded(random_images(1)[0], "JPEG")[:400], "corrupt_image"),
    "zero size": (png_header(0, 0), "not_an_image"),
    "bomb": (png_header(60000, 60000), "image_too_large"),
    "scans": (jpeg_of_scans(9_000, 7_000, 1_000), "image_too_large"),  # 11 kB kept a thread for half a minute
    "slow format": (encoded(random_images(1)[0], "QOI"), "not_an_image"),
    "header only": (png_header(10, 10), "corrupt_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
}


@pytest.mark.parametrize(("content", "code"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
async def test_bad_image_fails_itself_only(
    serve: Serve, repository: ModelRepository, content: bytes, code: str
) -> None:
    publish(repository)
    async with serve() as (client, _):
        beside = asyncio.create_task(client.post("/predict", files=[good(2)]))  # another request, in the same batch
        answer = await client.post("/predict", files=[good(0), part(content, "photo.jpg"), good(1)])
        assert_is((await beside).json()["results"][0], 2)
    assert answer.status_code == 200
    before, bad, after = answer.json()["results"]
    assert_is(before, 0)
    assert_is(after, 1)
    assert bad.keys() == {"filename", "error"}
    assert bad["filename"] == "photo.jpg"
    assert bad["error"]["code"] == code
    assert bad["error"]["message"]


async def test_no_good_image_is_422_with_all_reasons(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post("/predict", files=[part(b"", "a.png"), part(b"text", "b.png")])
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "no_valid_image")
    assert answer.headers["content-type"] == "application/problem+json"
    assert [r["error"]["code"] for r in problem["results"]] == ["empty_file", "not_an_image"]
    assert problem["detail"] == "the 2 images cannot be used; `results` says why"


async def test_a_field_of_a_form_in_which_no_file_was_chosen_is_passed_over(
    serve: Serve, repository: ModelRepository
) -> None:
    publish(repository)
    empty = b'--x\r\nContent-Disposition: form-data; name="%s"; filename=""\r\nContent-Type: text/plain\r\n\r\n\r\n'
    body = empty % b"file" + empty % b"avatar" + HEAD.replace(b"a.png", b"0.png") + PNG + b"\r\n--x--\r\n"
    async with serve() as (client, _):
        answer = await client.post("/predict", content=body, headers=BOUNDARY)
    (result,) = answer.json()["results"]
    assert_is(result, 0)


def odd(make: Callable[[], Image.Image], format: str = "PNG", **options: Any) -> bytes:  # Any: Pillow's options
    file = io.BytesIO()
    make().save(file, format, **options)
    return file.getvalue()


def palette_with_alpha() -> Image.Image:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.info["transparency"] = 0
    return image


ODD_IMAGES = {
    "1xN": odd(lambda: Image.new("RGB", (1, 5000), "red")),
    "Nx1": odd(lambda: Image.new("RGB", (5000, 1), "red")),
    "1x1": odd(lambda: Image.new("RGB", (1, 1), "red")),
    "CMYK": odd(lambda: Image.new("CMYK", (20, 20), (0, 200, 200, 0)), "JPEG"),
    "16-bit": odd(lambda: Image.fromarray(np.full((20, 20), 40000, np.uint16))),
    "palette with alpha": odd(palette_with_alpha, transparency=0),
    "animated GIF": odd(
        lambda: Image.new("RGB", (20, 20), "red"),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (20, 20), "blue")],
    ),
    "1-bit": odd(lambda: Image.new("1", (20, 20), 1)),
    "grey and alpha": odd(lambda: Image.new("LA", (20, 20), (100, 50))),
}


@pytest.mark.parametrize("content", ODD_IMAGES.values(), ids=ODD_IMAGES.keys())
async def test_odd_image_is_classified(serve: Serve, repository: ModelRepository, content: bytes) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post("/predict?top_k=7", files=[part(content)])
    assert answer.status_code == 200, answer.text
    probabilities = [p["probability"] for p in answer.json()["results"][0]["predictions"]]
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)


PNG = encoded(IMAGES[0])
BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
BAD_BODIES: dict[str, tuple[dict[str, Any], int, str, str]] = {  # Any: httpx' arguments
    "wrong field": ({"files": [good(0), part(b"x", field="image")]}, 422, "wrong_field", "a part is named 'image'"),
    "text field": ({"files": [("file", (None, b"words"))]}, 422, "wrong_field", "it came as text: 'words'"),
    "no parts": ({"content": b"--x--\r\n", "headers": BOUNDARY}, 422, "no_file", "it has no parts"),
    "no file chosen": (
        {"content": HEAD.replace(b"a.png", b"") + b"\r\n--x--\r\n", "headers": BOUNDARY},
        *(422, "no_file", "no file was chosen"),
    ),
    "empty body": ({"content": b""}, 422, "no_file", "it is empty"),
    "empty multipart": ({"content": b"", "headers": BOUNDARY}, 400, "malformed_body", "breaks off"),
    "no boundary": (
        {"content": HEAD, "headers": {"content-type": "multipart/form-data"}},
        400,
        "malformed_body",
        "boundary",
    ),
    "garbage": ({"content": b"garbage", "headers": BOUNDARY}, 400, "malformed_body", "cannot be read"),
    "broken off": (
        {"content": HEAD + encoded(IMAGES[0]) + b"\r\n" + HEAD + b"\x89PNG", "headers": BOUNDARY},
        *(400, "malformed_body", "closing boundary"),
    ),
    "part without a name": (
        {"content": b"--x\r\n\r\nabc\r\n--x--\r\n", "headers": BOUNDARY},
        400,
        "malformed_body",
        "name",
    ),
    "another multipart": (
        {"content": HEAD, "headers": {"content-type": "multipart/mixed; boundary=x"}},
        415,
        "unsupported_body",
        "mixed",
    ),
    "too many files": ({"files": [good(0)] * 9}, 413, "too_many_files", "at most 8"),
    "text beside alone": ({"files": [("token", (None, b"x"))]}, 422, "no_file", "it has only the text fields 'token'"),
    "pixels as text": ({"files": [("file", (None, PNG))]}, 422, "wrong_field", f"{len(PNG)} bytes that are not text"),
    "an image in another field": (
        {"content": b'--x\r\nContent-Disposition: form-data; name="photo"\r\nContent-Type: image/png\r\n\r\n--x--\r\n'}
        | {"headers": BOUNDARY},
        *(422, "wrong_field", "a part is named 'photo'"),
    ),
    "another encoding": (
        {"content": HEAD[:-2] + b"Content-Transfer-Encoding: x-gzip\r\n\r\nx\r\n--x--\r\n", "headers": BOUNDARY},
        *(400, "malformed_body", "it is 'x-gzip'"),
    ),
    "broken base64": (
        {"content": HEAD[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nabcde\r\n--x--\r\n", "headers": BOUNDARY},
        *(400, "malformed_body", "the part 'file' should be base64"),
    ),
    "headers without end": (
        {"content": HEAD[:-2] + b"a: b\r\n" * 10_000 + b"\r\n\r\n--x--\r\n", "headers": BOUNDARY},
        *(400, "malformed_body", "at most 16384 bytes"),
    ),
    "a line that begins like the boundary": (
        {"content": HEAD + b"\r\n--xy\r\n--x--\r\n", "headers": BOUNDARY},
        *(400, "malformed_body", "its boundary should be followed by"),
    ),
    "long boundary": (
        {"content": b"--", "headers": {"content-type": f"multipart/form-data; boundary={'x' * 300}"}},
        *(400, "malformed_body", "this one has 300"),
    ),
    "too many other fields": (
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n\r\n' * 65 + b"--x--",
            "headers": BOUNDARY,
        },
        *(413, "too_many_files", "at most 64 text fields"),
    ),
    "too many text fields": ({"files": [("file", (None, b"x"))] * 9}, 422, "wrong_field", "it came as text: 'x'"),
}


@pytest.mark.parametrize(("body", "status", "code", "detail"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_answered_with_what_was_expected(
    serve: Serve, repository: ModelRepository, body: dict[str, Any], status: int, code: str, detail: str
) -> None:
    publish(repository)
    async with serve(max_files=8) as (client, services):
        answer = await client.post("/predict", **body)
        assert services.inference.admission.depth == 0
        assert (await client.post("/predict", files=[good(0)])).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "field", "classes"), [("", "2", 2), ("?top_k=3", "2", 3), ("", "", 5), ("?top_k=3", "none", 3)]
)
async def test_top_k_may_be_a_field_of_the_form(
    serve: Serve, repository: ModelRepository, query: str, field: str, classes: int
) -> None:
    publish(repository)
    async with serve() as (client, _):
        answer = await client.post(f"/predict{query}", files=[good(0)], data={"top_k": field})
        refused = await client.post("/predict", files=[good(0)], data={"top_k": "many"})
    assert len(answer.json()["results"][0]["predictions"]) == classes
    assert refused.status_code == 422
    assert "form.top_k" in refused.json()["detail"]


async def test_odd_filenames_come_back(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    image = encoded(IMAGES[0])
    names = ["кот 猫.png".encode(), b"\xff\xfe.png", b"..\\..\\x.png", b""]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
    body = b"".join(head % name + image + b"\r\n" for name in names) + b"--x--\r\n"
    async with serve() as (client, _):
        answer = await client.post("/predict", content=body, headers=BOUNDARY)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["filename"] == "кот 猫.png"


async def test_upload_over_the_limit_is_cut_off_while_it_streams(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 1000

    async with serve(max_upload=5000) as (client, _):
        for headers in ({"content-type": "image/png"}, BOUNDARY):
            sent = 0
            answer = await client.post("/predict", content=endless(), headers=headers)
            # garbage is no multipart body, and may be refused before the limit
            assert answer.status_code in ((413,) if headers is not BOUNDARY else (400, 413))
            assert sent <= 6
        sent = 0
        announced = {"content-type": "image/png", "content-length": "1000000"}
        answer = await client.post("/predict", content=endless(), headers=announced)
    assert (answer.status_code, answer.json()["code"], sent) == (413, "upload_too_large", 0)
    assert "at most 5000 bytes, 1000000 bytes are announced" in answer.json()["detail"]


async def test_multipart_over_the_limit(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)

    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        while True:
            yield b"\0" * 1000

    async with serve(max_upload=5000) as (client, _):
        answer = await client.post("/predict", content=body(), headers=BOUNDARY)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


async def test_pixels_over_the_limit(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(max_pixels=SIZE * SIZE - 1) as (client, _):
        answer = await client.post("/predict", files=[good(0)])
    assert answer.json()["results"][0]["error"]["code"] == "image_too_large"


async def test_what_pillow_does_not_convert_harms_no_neighbour(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    premultiplied = tiff(np.array([120, 255] * 32 * 32, np.uint8), channels=2, alpha=1)
    signed = tiff(np.zeros((32, 32), np.int16), bits=16, signed=True)
    files = [good(0), part(premultiplied), part(signed), part((DATA / "turned.heic").read_bytes()), part(b"%PDF-1.7")]
    async with serve() as (client, _):
        answer = await client.post("/predict", files=[*files, good(1)])
    results = answer.json()["results"]
    assert_is(results[0], 0)
    assert_is(results[-1], 1)
    assert [result.get("error", {}).get("code") for result in results[1:-1]] == [
        None,
        "unsupported_pixels",
        None,
        "not_an_image",
    ]
    assert results[-2]["error"]["message"] == "the file is a PDF, which is not read here; export it as JPEG or PNG"


async def test_no_model(serve: Serve) -> None:
    async with serve() as (client, _):
        answer = await client.post("/predict", files=[good(0)])
    assert (answer.status_code, answer.json()["code"]) == (503, "no_model")
    assert "resnext train DIR" in answer.json()["detail"]


def hold_decoders(services: Services) -> threading.Event:
    """Keeps the only decoder busy until the event is set, so that requests stay where they are."""
    gate = threading.Event()
    services.inference.decoders.submit(gate.wait, 30)
    return gate


async def test_full_queue_is_503_with_retry_after_and_frees_up(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(queue_size=4, max_files=4, decode_threads=1) as (client, services):
        gate = hold_decoders(services)
        waiting = asyncio.create_task(client.post("/predict", files=[good(0), good(1), good(2)]))
        await until_depth(services, 3)
        refused = await client.post("/predict", files=[good(0), good(1)])
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        gate.set()
        assert (await waiting).status_code == 200
        assert services.inference.admission.depth == 0


async def test_full_queue_refuses_before_it_reads_the_upload(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b""

    async with serve(queue_size=1, max_files=1, decode_threads=1) as (client, services):
        gate = hold_decoders(services)
        waiting = asyncio.create_task(client.post("/predict", files=[good(0)]))
        await until_depth(services, 1)
        assert (await client.post("/predict", content=body())).json()["code"] == "queue_full"
        gate.set()
        assert (await waiting).status_code == 200
    assert not read


async def until_depth(services: Services, depth: int) -> None:
    async with asyncio.timeout(30):
        while services.inference.admission.depth != depth:  # noqa: ASYNC110  the service sets no Event for its tests
            await asyncio.sleep(0)


async def test_deadline_is_504_and_frees_its_places(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(request_timeout=0.02, decode_threads=1) as (client, services):
        gate = hold_decoders(services)
        answer = await client.post("/predict", files=[good(0), good(1)])
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert "within 0.02 s" in answer.json()["detail"]
        assert services.inference.admission.depth == 0
        gate.set()


async def test_client_that_leaves_frees_its_places(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)
    async with serve(decode_threads=1) as (client, services):
        app = client._transport.app  # type: ignore[attr-defined]  # httpx has no public way to it
        gate = hold_decoders(services)
        left = asyncio.Event()
        messages = [{"type": "http.request", "body": encoded(IMAGES[0]), "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
        request = asyncio.create_task(app(scope, receive, send))
        await until_depth(services, 1)
        left.set()
        await asyncio.wait_for(request, 30)
        assert services.inference.admission.depth == 0
        assert sent[0]["status"] == 499
        gate.set()
        assert (await client.post("/predict", files=[good(0)])).status_code == 200


async def test_failed_run_is_500_for_its_batch_and_the_next_request_works(
    serve: Serve, repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    publish(repository, model=network(0, fragile=True))
    white = encoded(np.full((SIZE, SIZE, 3), 255, np.uint8))
    async with serve() as (client, services):
        failed = await client.post("/predict", files=[part(white)])
        assert (failed.status_code, failed.json()["code"]) == (500, "inference_failed")
        assert services.inference.admission.depth == 0
        assert_is((await client.post("/predict", files=[good(0)])).json()["results"][0], 0)
    assert "a run of 1 images failed" in caplog.text


async def test_many_clients_each_get_their_own_answer(serve: Serve, repository: ModelRepository) -> None:
    publish(repository)

    async def client_of_image(client: httpx.AsyncClient, number: int) -> None:
        for _ in range(5):
            assert_is((await client.post("/predict", files=[good(number)])).json()["results"][0], number)

    async with serve() as (client, _):
        await asyncio.gather(*(client_of_image(client, number % 6) for number in range(18)))


async def test_swap_under_load_over_http(serve: Serve, repository: ModelRepository) -> None:
    expected = {publish(repository, seed, activate=False): reference(network(seed), IMAGES) for seed in range(3)}
    repository.activate(1)
    async with serve() as (client, _):
        swapping = True
        seen: set[int] = set()

        async def load(number: int) -> None:
            while swapping:
                answer = await client.post("/predict?top_k=1", files=[good(number)])
                assert answer.status_code == 200, answer.text
                body = answer.json()
                seen.add(body["model"]["version"])
                (best,) = body["results"][0]["predictions"]
                wanted = expected[body["model"]["version"]][number]
                assert best["probability"] == pytest.approx(wanted[best["index"]], abs=1e-5)
                assert best["index"] == wanted.argmax()

        clients = [asyncio.create_task(load(number)) for number in range(6)]
        for version in (2, 3, 1, 3):
            assert (await client.post(f"/models/{version}/activate")).status_code == 200
        swapping = False
        await asyncio.gather(*clients)
    assert len(seen) > 1


def test_best_classes_order_ties_by_index() -> None:
    best = best_classes(np.array([0.2, 0.3, 0.2, 0.3], np.float32), list("abcd"), 3)
    assert [(p.label, p.index) for p in best] == [("b", 1), ("d", 3), ("a", 0)]
