"""Rows of the jobs' database that cannot be read, and what is asked beside them."""

import base64
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.engine import Engine, ask
from training.jobs.job import JobDamaged, JobNotResumable

REQUEST = {"config": {"data": "photos"}, "dataset": {"name": "photos"}}


class Attack:
    """A pickle that makes a folder where it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)

    def __str__(self) -> str:
        return base64.b64encode(pickle.dumps(self)).decode()


def spoil(engine: Engine, attack: str) -> dict[str, str]:
    """Queues a job for each kind of bad row. Returns their ids, each with a part of what is said of it."""
    rows: list[tuple[dict[str, str | None], str]] = [
        ({"serialization": "py_pickle", "inputs": attack}, "it holds 'gASV"),
        ({"serialization": "py_pickle"}, "it holds '{"),
        ({"serialization": "zip"}, "it holds '{"),
        ({"serialization": None}, "args: Field required"),
        ({"inputs": "["}, "it holds '['"),
        ({"inputs": None}, "it holds 'None'"),
        ({"inputs": json.dumps({"positionalArgs": ["../../up", REQUEST]})}, "the request of another one, '../../up'"),
    ]
    found = {}
    for columns, said in rows:
        id = engine.submit().id
        engine.spoil(id, **columns)
        found[id] = said
    return found


def ask_about_bad_rows(engine: Engine, attack: str) -> str:
    """Asks everything about bad rows beside a good one, whose id is returned."""
    first = engine.submit(priority=1).id
    bad = spoil(engine, attack)
    for id, said in bad.items():
        with pytest.raises(JobDamaged, match=id) as damaged:
            ask(engine.jobs.get(id))
        assert said in str(damaged.value)
        assert ask(engine.jobs.status(id)).state == "queued"
    jobs, _, unreadable = ask(engine.jobs.list(["queued"]))
    assert first in [job.id for job in jobs]
    assert {job.id: bad[job.id] in job.error for job in unreadable} == dict.fromkeys(bad, True)
    assert ask(engine.jobs.states()).keys() >= {first, *bad}
    assert ask(engine.jobs.using("photos")).keys() & {first, *bad} == {first}
    some = next(iter(bad))
    with pytest.raises(JobNotResumable):
        ask(engine.jobs.resume(some))
    with pytest.raises(JobDamaged):
        ask(engine.jobs.cancel(some))
    assert ask(engine.jobs.status(some)).state == "cancelled"
    return first
