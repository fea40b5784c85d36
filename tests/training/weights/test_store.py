import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.contract.architecture import Architecture
from training.weights import store as module
from training.weights.presets import preset_named
from training.weights.store import (
    WeightsDamaged,
    WeightsError,
    WeightsExist,
    WeightsNotFound,
    WeightsRecord,
    WeightsStore,
)

CONTENT = b"tensors"


def record(name: str = "tv_in1k", content: bytes = CONTENT) -> WeightsRecord:
    return WeightsRecord(
        name=name,
        origin="timm/resnext50_32x4d.tv_in1k",
        revision="6af7026",
        licence="bsd-3-clause",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        architecture=Architecture(),
        preprocessing=preset_named("tv_in1k").preprocessing(),
        labels=["cat", "dog"],
        created=datetime.now(UTC),
    )


def put(store: WeightsStore, name: str = "tv_in1k", content: bytes = CONTENT) -> WeightsRecord:
    made = record(name, content)
    with store.staging() as folder:
        (folder / "file").write_bytes(content)
        store.put(folder / "file", made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


def seen(store: WeightsStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".lock")


def test_a_store_that_is_not_there_is_empty_and_is_not_made_by_a_question(store: WeightsStore) -> None:
    assert store.names() == []
    assert store.default() is None
    with pytest.raises(WeightsNotFound, match=r"there are no weights 'x' in .*; there are: none"):
        store.remove("x")
    assert not store.folder.exists()


def test_weights_are_read_as_they_were_put(store: WeightsStore) -> None:
    made = put(store)
    assert store.names() == ["tv_in1k"]
    assert store.record("tv_in1k") == made
    assert store.file("tv_in1k").read_bytes() == store.verified_file("tv_in1k").read_bytes() == CONTENT
    assert seen(store) == ["tv_in1k.json", "tv_in1k.safetensors"]


def test_the_default_is_torchvisions_else_the_only_one(store: WeightsStore) -> None:
    put(store, "mine")
    assert store.default() == "mine"
    put(store, "yours")
    assert store.default() is None
    put(store, "tv_in1k")
    assert store.default() == "tv_in1k"


def test_a_name_is_given_once(store: WeightsStore) -> None:
    made = put(store)
    with pytest.raises(WeightsExist, match=r"there are weights 'tv_in1k'.*resnext weights remove tv_in1k"):
        put(store, content=b"others")
    assert store.record("tv_in1k") == made
    assert store.verified_file("tv_in1k").read_bytes() == CONTENT
    assert seen(store) == ["tv_in1k.json", "tv_in1k.safetensors"]


def test_a_file_without_a_record_is_taken_if_it_is_the_same_and_never_overwritten(store: WeightsStore) -> None:
    """A crash between the two files leaves the first; a person may have put a file there."""
    store.folder.mkdir()
    orphan = store.folder / "tv_in1k.safetensors"
    orphan.write_bytes(b"a person's")
    assert store.names() == []
    with pytest.raises(WeightsExist, match="is there without a record, and holds something else"):
        put(store)
    assert orphan.read_bytes() == b"a person's"
    orphan.write_bytes(CONTENT)
    put(store)
    assert store.names() == ["tv_in1k"]


def test_a_staged_file_that_is_not_the_records_is_not_put(store: WeightsStore) -> None:
    with store.staging() as folder:
        (folder / "file").write_bytes(b"other")
        with pytest.raises(WeightsDamaged, match="should have 7 bytes, it has 5"):
            store.put(folder / "file", record())
    assert seen(store) == []


def test_removing_takes_both_files(store: WeightsStore) -> None:
    put(store)
    store.remove("tv_in1k")
    assert seen(store) == []
    put(store)
    (store.folder / "tv_in1k.json").write_text("{")
    store.remove("tv_in1k")
    assert seen(store) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "abc"}, "sha256: String should match pattern"),
        ({"labels": ["cat", "cat"]}, "labels: .*'cat' comes twice"),
        ({"architecture": {"depths": []}}, "architecture.depths"),
        ({"licence": ""}, "licence"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_the_file_and_the_field(
    store: WeightsStore, change: dict[str, object], complaint: str
) -> None:
    put(store)
    path = store.folder / "tv_in1k.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsDamaged, match=rf"tv_in1k\.json should hold .*{complaint}"):
        store.record("tv_in1k")
    assert store.names() == ["tv_in1k"]


def test_a_record_is_about_its_own_name(store: WeightsStore) -> None:
    put(store)
    (store.folder / "tv_in1k.json").rename(store.folder / "tv2_in1k.json")
    with pytest.raises(WeightsDamaged, match=r"tv2_in1k\.json should be about .*'tv2_in1k', it is about 'tv_in1k'"):
        store.record("tv2_in1k")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00" * 10, '{"name": "tv_in1k"}'])
def test_what_is_no_record_at_all_is_an_error_too(store: WeightsStore, text: str) -> None:
    put(store)
    (store.folder / "tv_in1k.json").write_text(text)
    with pytest.raises(WeightsDamaged, match=r"tv_in1k\.json should hold the record of the weights 'tv_in1k'"):
        store.record("tv_in1k")


def test_a_record_is_read_within_a_bound(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 100)
    with pytest.raises(WeightsDamaged, match="should have at most 100 bytes, it has more"):
        store.record("tv_in1k")
    with pytest.raises(ValidationError, match="a record should have at most 100 bytes"):
        record()


def test_a_record_that_cannot_be_read_is_named(store: WeightsStore) -> None:
    (store.folder / "odd.json").mkdir(parents=True)
    with pytest.raises(WeightsDamaged, match=r"odd\.json cannot be read: Is a directory"):
        store.record("odd")


def test_a_changed_missing_or_shortened_file_is_found(store: WeightsStore) -> None:
    put(store)
    path = store.folder / "tv_in1k.safetensors"
    path.write_bytes(CONTENT[::-1])
    assert store.file("tv_in1k") == path  # as long as it was; its bytes are not read
    with pytest.raises(WeightsDamaged, match=r"tv_in1k\.safetensors should have SHA-256 .*, it has "):
        store.verified_file("tv_in1k")
    path.write_bytes(CONTENT[:3])
    with pytest.raises(WeightsDamaged, match="should have 7 bytes, it has 3"):
        store.file("tv_in1k")
    path.unlink()
    with pytest.raises(WeightsDamaged, match=r"tv_in1k\.safetensors is missing; tv_in1k\.json is there"):
        store.verified_file("tv_in1k")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "CURRENT", "x" * 65, "\U0001f600" * 60])
def test_a_name_that_cannot_be_used_leads_nowhere(store: WeightsStore, name: str) -> None:
    with pytest.raises(WeightsError, match="name"):
        store.record(name)
    with pytest.raises((WeightsError, ValidationError)):
        put(store, name)


def test_files_that_are_no_records_are_not_listed(store: WeightsStore) -> None:
    put(store, "été")
    for name in (".hidden.json", "notes.txt", "-x.json", "model.safetensors"):
        (store.folder / name).write_text("x")
    assert store.names() == ["été"]
    assert store.record("e\u0301te\u0301") == store.record("été")  # the same name as a Mac types it
