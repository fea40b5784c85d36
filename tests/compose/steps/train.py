import io
import tarfile
import tempfile

import httpx

from tests.compose.engine import compose, url, within
from tests.compose.service import get, over, submitted
from tests.process import until

CLASSES = {"0": "零", "1": "一", "2": "二"}


def train() -> None:
    """Uploads a dataset, trains on it and reads the report. Its classes are Chinese: they need the image's font."""
    names = within("api", "sh", "-c", "cd /data/datasets/digits/1/images; ls -d [012]/*").decode().split()
    packed = io.BytesIO(within("api", "tar", "-C", "/data/datasets/digits/1/images", "-cf", "-", *names))
    with tarfile.open(fileobj=packed) as source, tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as renamed:
            for member in source:
                digit, _, name = member.name.partition("/")
                content = source.extractfile(member)
                member.name = f"{CLASSES[digit]}/{name}"
                renamed.addfile(member, content)
        file.seek(0)
        answer = httpx.put(url() + "/datasets/few", content=file.read(), timeout=120)
    assert answer.status_code == 201, answer.text
    id = submitted("few")
    until(lambda: over(id), 600)
    job = get(f"/train/{id}")
    assert (job["state"], job["version"]) == ("rejected", 2), job["reason"]
    log = httpx.get(f"{url()}/train/{id}/log").text
    assert "Glyph" not in log, log
    picture = httpx.get(f"{url()}/train/{id}/report/confusion.png")
    assert picture.content.startswith(b"\x89PNG")
    assert "Traceback" not in compose("logs", "api")
