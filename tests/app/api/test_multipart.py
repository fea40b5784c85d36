"""Bodies in the dialects of clients, sent to POST /predict."""

import base64
import binascii
from collections.abc import AsyncIterator
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart

import numpy as np
import pytest

from tests.app.conftest import Serve
from tests.app.network import encoded, network, publish, random_images, reference
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

IMAGES = random_images(1, seed=3)
PNG = encoded(IMAGES[0])
ORDER = np.argsort(-reference(network(0), IMAGES)[0], kind="stable")[:5].tolist()
BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}


def form(*parts: tuple[bytes, bytes], newline: bytes = b"\r\n", before: bytes = b"", after: bytes = b"") -> bytes:
    """Returns a multipart body of parts, each (headers, content), each header a line."""
    made = [newline.join([b"--x", *head.split(b"\n"), b"", content]) for head, content in parts]
    return before + newline.join([*made, b"--x--"]) + after


NAMED = b'Content-Disposition: form-data; name="file"'
PLAIN = NAMED + b'; filename="a.png"'
TOKEN = b'Content-Disposition: form-data; name="token"'
DIALECTS: dict[str, tuple[bytes, str | None]] = {
    "name in UTF-8 alone": (form((NAMED + b"; filename*=utf-8''%E7%8C%AB.png", PNG)), "猫.png"),
    "name with a language": (form((NAMED + b"; filename*=UTF-8'en'caf%C3%A9.png", PNG)), "café.png"),
    "name in Latin-1": (form((NAMED + b"; filename*=iso-8859-1''caf%E9.png", PNG)), "café.png"),
    "name in Shift JIS": (form((NAMED + b"; filename*=shift_jis''%94L.png", PNG)), "猫.png"),
    "name in pieces": (form((NAMED + b"; filename*0*=utf-8''%E7%8C%AB; filename*1=.png", PNG)), "猫.png"),
    "name in no charset": (form((NAMED + b"; filename*=%E7%8C%AB.png", PNG)), "猫.png"),
    "name of half a character": (form((NAMED + b"; filename*=utf-7''+2AA-.png", PNG)), "?.png"),
    "name in an unknown charset": (form((NAMED + b"; filename*=klingon''a.png", PNG)), "a.png"),
    "both names": (form((PLAIN + b"; filename*=utf-8''%E7%8C%AB.png", PNG)), "a.png"),
    "both names, the other way round": (
        form((b"Content-Disposition: form-data; filename*=utf-8''b.png; filename=a.png; name=file", PNG)),
        "a.png",
    ),
    "field name in UTF-8": (form((b"Content-Disposition: form-data; name*=utf-8''file; filename=a.png", PNG)), "a.png"),
    "no name, but an image's type": (form((NAMED + b"\nContent-Type: image/png", PNG)), None),
    "quotes in the name": (
        form((b'Content-Disposition: form-data; name="file"; filename="a\\"b;.png"', PNG)),
        'a"b;.png',
    ),
    "headers in capitals": (form((b'CONTENT-DISPOSITION:FORM-DATA;NAME="file";FILENAME="a.png"', PNG)), "a.png"),
    "brackets": (form((PLAIN.replace(b'"file"', b'"file[]"'), PNG)), "a.png"),
    "preamble": (form((PLAIN, PNG), before=b"This is a message\r\nin --x MIME format.\r\n"), "a.png"),
    "preamble of headers": (form((PLAIN, PNG), before=b"MIME-Version: 1.0\r\n\r\n"), "a.png"),
    "epilogue": (form((PLAIN, PNG), after=b"\r\nthe end\r\n--x"), "a.png"),
    "padding": (form((PLAIN, PNG), (TOKEN, b"1")).replace(b"--x\r\n", b"--x \t\r\n"), "a.png"),
    "padding at the end": (form((PLAIN, PNG), after=b"  \r\n"), "a.png"),
    "folded header": (form((b'Content-Disposition: form-data;\n name="file";\n\tfilename="a.png"', PNG)), "a.png"),
    "bare line feeds": (form((PLAIN, PNG), newline=b"\n"), "a.png"),
    "base64": (form((PLAIN + b"\nContent-Transfer-Encoding: Base64", base64.encodebytes(PNG))), "a.png"),
    "quoted-printable": (
        form((PLAIN + b"\nContent-Transfer-Encoding: quoted-printable", binascii.b2a_qp(PNG, istext=False))),
        "a.png",
    ),
    "binary": (form((PLAIN + b"\nContent-Transfer-Encoding: binary", PNG)), "a.png"),
    "text beside": (form((TOKEN, b"secret"), (PLAIN, PNG), (TOKEN.replace(b"token", b"_charset_"), b"UTF-8")), "a.png"),
    "JSON beside": (form((TOKEN + b"\nContent-Type: application/json", b"{}"), (PLAIN, PNG)), "a.png"),
    "empty text beside": (form((TOKEN, b""), (PLAIN, PNG)), "a.png"),
}


@pytest.mark.parametrize(("body", "filename"), DIALECTS.values(), ids=DIALECTS.keys())
async def test_dialects_of_multipart_are_understood(
    serve: Serve, repository: ModelRepository, body: bytes, filename: str | None
) -> None:
    publish(repository)

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    async with serve() as (client, _):
        for content in (body, in_pieces()):
            answer = await client.post("/predict", content=content, headers=BOUNDARY)
            assert answer.status_code == 200, answer.text
            (result,) = answer.json()["results"]
            assert result["filename"] == filename
            assert [p["index"] for p in result["predictions"]] == ORDER


@pytest.mark.parametrize("charset", [b"idna", b"utf-8\0"])
async def test_a_name_that_cannot_be_read_is_reported(
    serve: Serve, repository: ModelRepository, charset: bytes
) -> None:
    publish(repository)
    body = form((NAMED + b"; filename*=" + charset + b"''%ff%ff", PNG))
    async with serve() as (client, _):
        answer = await client.post("/predict", content=body, headers=BOUNDARY)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert answer.json()["detail"].startswith("the filename* of a part's Content-Disposition cannot be read: ")


async def test_parts_of_the_standard_library_are_understood(serve: Serve, repository: ModelRepository) -> None:
    """The standard library ends lines with LF, folds headers and writes base64."""
    publish(repository)
    message = MIMEMultipart("form-data")
    image = MIMEImage(PNG, "png")
    image.add_header("Content-Disposition", "form-data", name="file", filename=("utf-8", "", "кот" * 30 + ".png"))
    message.attach(image)
    body = message.as_bytes()
    async with serve() as (client, _):
        answer = await client.post("/predict", content=body, headers={"content-type": message["Content-Type"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["filename"] == "кот" * 30 + ".png"
