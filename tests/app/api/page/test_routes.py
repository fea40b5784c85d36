"""The pages as a browser gets them. How they look was checked in a browser."""

import base64
import hashlib
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

import app
from tests.app.conftest import Serve
from tests.app.network import encoded, publish, random_images
from training.contract.repository import ModelRepository

pytestmark = pytest.mark.anyio

FOLDER = Path(app.__path__[0])
PAGES = ("/", "/docs", "/docs/")
REFERENCES = {"src", "href", "action", "data-schema", "data-base"}


class Markup(HTMLParser):
    """Collects what a page refers to, its inline parts, the ids of its elements, and what its labels are for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.ids: list[str] = []
        self.labelled: list[str] = []
        self.attributes: set[str] = set()
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes |= found.keys()
        self.references += [value for name, value in found.items() if name in REFERENCES]
        self.ids += [found["id"]] if "id" in found else []
        self.labelled += [found[name] for name in ("for", "aria-labelledby") if name in found]
        self._within = tag if tag in self.inline and "src" not in found else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = "" if tag == self._within else self._within

    def handle_data(self, data: str) -> None:
        if self._within:
            self.inline[self._within].append(data)


def policy_of(answer: httpx.Response) -> dict[str, list[str]]:
    parts = (part.split() for part in answer.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in parts}


@pytest.mark.parametrize("prefix", ["", "/vision"])
@pytest.mark.parametrize("path", PAGES)
async def test_a_page_asks_for_nothing_but_this_service(serve: Serve, path: str, prefix: str) -> None:
    async with serve(root_path=prefix, api_keys="secret") as (client, _):
        answer = await client.get(prefix + path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert (await client.head(prefix + path)).status_code == 200
        page = Markup(answer.text)
        for reference in page.references:
            if reference.startswith("data:"):
                continue
            assert not urlsplit(reference).netloc, reference
            address = urljoin(prefix + path, reference)
            assert address.startswith(f"{prefix}/")
            method = "POST" if address.endswith("/predict") else "GET"
            found = await client.request(method, address, headers={"x-api-key": "secret"})
            assert found.status_code == (503 if method == "POST" else 200), address
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)


@pytest.mark.parametrize("path", PAGES)
async def test_a_browser_runs_what_stands_in_the_page_and_nothing_else(serve: Serve, path: str) -> None:
    async with serve() as (client, _):
        answer = await client.get(path)
    page, policy = Markup(answer.text), policy_of(answer)
    assert policy["default-src"] == ["'none'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    hashes = {kind: [hash_of(text) for text in texts] for kind, texts in page.inline.items()}
    assert set(policy["script-src"]) - {"'self'"} == set(hashes["script"]) != set()
    if path == "/":
        assert policy["style-src"] == hashes["style"]
    assert not any(name.startswith("on") or name == "style" for name in page.attributes)
    assert answer.headers["x-content-type-options"] == "nosniff"


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def test_names_within_the_page_lead_somewhere(serve: Serve) -> None:
    async with serve() as (client, _):
        page = Markup((await client.get("/")).text)
    (script,) = page.inline["script"]
    named = set(re.findall(r"""(?:\bat|\bshow)\("([^"]+)\"""", script)) | set(page.labelled)
    assert len(page.ids) == len(set(page.ids)) > 5
    assert named <= set(page.ids)


async def test_what_the_page_shows_is_in_the_answers(serve: Serve, repository: ModelRepository) -> None:
    async with serve() as (client, _):
        health = (await client.get("/health")).json()
        assert health["status"] == "no_model"
        assert "make starter" in health["why_no_model"]
        assert health["trainer"].keys() >= {"running", "queued"}
    publish(repository)
    async with serve() as (client, _):
        health = (await client.get("/health")).json()
        answer = await client.post("/predict", files={"file": encoded(random_images(1)[0])})
    assert (health["why_no_model"], health["model"]["classes"]) == (None, 7)
    assert health["model"].keys() >= {"name", "version", "precision", "provider"}
    assert answer.json()["results"][0].keys() == {"filename", "predictions"}


async def test_the_docs_bring_their_own_script_and_style(serve: Serve) -> None:
    async with serve() as (client, _):
        script = await client.get("/docs/swagger-ui-bundle.js")
        style = await client.get("/docs/swagger-ui.css")
        for name in ("../page/routes.py", "LICENSE", "nothing"):
            refused = await client.get(f"/docs/{name}")
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert script.headers["content-type"].startswith("text/javascript")
    assert style.headers["content-type"].startswith("text/css")
    assert "SwaggerUIBundle" in script.text
    addresses = re.findall(r"""url\(["']?([^"')]{1,20})""", style.text)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)


def test_the_package_carries_the_pages() -> None:
    packaged = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "app"
    ]
    carried = {path for pattern in packaged for path in FOLDER.glob(pattern)}
    files = {path for path in (FOLDER / "page").rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix not in {".py", ".pyc"}} <= carried
    assert {path.name for path in carried} >= {"index.html", "docs.html", "swagger-ui-bundle.js", "LICENSE", "NOTICE"}
