from typing import Literal

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.api.problems import install_error_handlers
from tests.app.conftest import client_of

pytestmark = pytest.mark.anyio


class Inner(BaseModel):
    size: int


class Outer(BaseModel):
    inner: Inner | Literal["auto"] = "auto"
    sizes: list[int | Literal["auto"]] = []


async def test_a_field_has_the_name_that_was_written_not_that_of_a_unions_branch() -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/")
    async def take(outer: Outer) -> Outer:
        return outer

    async with client_of(app) as client:
        answer = await client.post("/", json={"inner": {"size": "x"}, "sizes": [1, "y"]})
        missing = await client.post("/", json={"inner": {}})
    assert {e["field"]: e["got"] for e in answer.json()["errors"]} == {
        "body.inner": '{"size": "x"}',  # the union's other branch expects a word
        "body.inner.size": '"x"',
        "body.sizes.1": '"y"',
    }
    assert {"field": "body.inner.size", "message": "Field required", "got": "nothing"} in missing.json()["errors"]


async def test_the_first_complaints_are_listed_and_shortened_and_the_rest_is_counted() -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/")
    async def take(outer: Outer) -> Outer:
        return outer

    large = {"x" * 100_000: "y" * 100_000}
    async with client_of(app) as client:
        answer = await client.post("/", json={"sizes": [large] * 15})
        few = await client.post("/", json={"sizes": [large] * 10})
    problem = answer.json()
    assert (len(problem["errors"]), problem["errors_left_out"]) == (20, 10)  # two for each: the union has two branches
    assert problem["detail"].endswith("; and 10 more")
    assert len(answer.content) < 10_000
    assert (len(few.json()["errors"]), "errors_left_out" in few.json()) == (20, False)
