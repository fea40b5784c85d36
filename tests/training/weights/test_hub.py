import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.weights.files import TINY, parameters, written
from tests.training.weights.stand_in_hub import REPOSITORY, Hub, stand_in_hub
from training.errors import TrainingError
from training.weights.download import Patience
from training.weights.hub import Pulled, Source, pull, source_of
from training.weights.importing import Description
from training.weights.licences import LicenceRefused
from training.weights.presets import PRESETS
from training.weights.store import WeightsExist, WeightsRejected, WeightsStore
from training.weights.tensors import TensorsError

BRISK = Patience(connect_s=5, answer_s=5, silence_s=5, pause_s=0)
TOKEN = "hf_secret"
BROKEN = ("", "host", "host/", "/file", "[::1/file", "host:99999/file", "host:x/file")  # addresses, without https://


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("hub") / "model.safetensors", parameters(classes=1000)).read_bytes()


@pytest.fixture
def hub(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in_hub(data) as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


def get(store: WeightsStore, hub: Hub, source: Source | None = None, patience: Patience = BRISK) -> Pulled:
    return pull(
        store,
        source or source_of(REPOSITORY),
        lambda *_: None,
        lambda *_: None,
        endpoint=hub.endpoint,
        patience=patience,
    )


def failure(store: WeightsStore, hub: Hub, source: Source | None = None, patience: Patience = BRISK) -> str:
    """Returns what is said of a pull that has to fail, and leaves nothing behind."""
    before = store.names()
    with pytest.raises(TrainingError) as caught:
        get(store, hub, source, patience)
    assert store.names() == before
    return str(caught.value)


def test_a_repository_of_a_preset_says_all(store: WeightsStore, hub: Hub) -> None:
    record = get(store, hub).record
    assert (record.name, record.origin, record.revision) == ("tv_in1k", REPOSITORY, hub.commit)
    assert (record.sha256, record.bytes, record.licence) == (hub.sha256, len(hub.data), "bsd-3-clause")
    assert record.preprocessing == PRESETS["tv_in1k"].preprocessing()
    assert (record.architecture, len(record.labels)) == (TINY, 1000)
    assert store.record("tv_in1k") == record
    assert store.verified_file("tv_in1k").read_bytes() == hub.data
    paths = [(method, path.split("/")[4]) for method, path, _ in hub.requests]
    assert paths == [("HEAD", "main"), ("GET", hub.commit)]
    assert not list(store.folder.glob(".staging-*"))


def test_a_preset_may_have_several_sizes(store: WeightsStore, hub: Hub) -> None:
    record = get(store, hub, source_of(REPOSITORY, "a1h_in1k", "large", image_size=288)).record
    assert record.preprocessing == PRESETS["a1h_in1k"].preprocessing(288)
    with pytest.raises(WeightsExist):
        get(store, hub, source_of(REPOSITORY, "a1h_in1k", "large", image_size=224))
    hub.refusal = (500, "")
    said = failure(store, hub, source_of(REPOSITORY, "a1h_in1k", image_size=288))
    assert said.endswith("import model.safetensors --preset a1h_in1k --name tv_in1k --image-size 288")


def test_weights_that_are_here_are_checked_and_compared(store: WeightsStore, hub: Hub) -> None:
    first = get(store, hub)
    assert first.note == ""
    hub.requests.clear()
    again = get(store, hub)
    assert again == Pulled(first.record, "the hub has the same file")
    assert [method for method, *_ in hub.requests] == ["HEAD"]
    hub.refusal = (503, "")
    assert get(store, hub).note.startswith("whether they have changed there is not known: ")


def test_weights_that_changed_on_the_hub_are_said_and_stay(store: WeightsStore, hub: Hub) -> None:
    record = get(store, hub).record
    hub.sha256, hub.commit = "d" * 64, "e" * 40
    said = failure(store, hub)
    assert f"has changed: its file has SHA-256 {'d' * 64} at eeeeeee, the weights 'tv_in1k' have SHA-256" in said
    assert f"{record.sha256} and {record.bytes} bytes at ccccccc" in said
    assert store.record("tv_in1k") == record


def test_weights_that_were_damaged_here_are_said(store: WeightsStore, hub: Hub) -> None:
    file = store.folder / "tv_in1k.safetensors"
    get(store, hub)
    file.write_bytes(file.read_bytes()[::-1])
    said = failure(store, hub)
    assert "should have SHA-256" in said
    assert said.endswith("resnext weights remove tv_in1k makes room to pull them again")


def test_another_source_does_not_take_a_name(store: WeightsStore, hub: Hub) -> None:
    get(store, hub)
    with pytest.raises(WeightsExist, match="give these another --name"):
        get(store, hub, source_of(hub.address, "tv2_in1k", "tv_in1k"))


def test_a_pull_goes_on_where_the_last_one_broke_off(store: WeightsStore, hub: Hub) -> None:
    hub.breaks = [1000]
    said = failure(store, hub, patience=Patience(tries=1))
    assert "The first 1000 bytes are kept for a day" in said
    assert get(store, hub).record.sha256 == hub.sha256
    assert hub.ranges() == ["", "bytes=1000-"]


def test_the_token_goes_to_the_hub_and_nowhere_else(store: WeightsStore, hub: Hub) -> None:
    hub.elsewhere = f"http://localhost:{hub.port}"  # another origin than 127.0.0.1
    assert get(store, hub).record.sha256 == hub.sha256
    sent = {(path.split("/")[1], headers.get("authorization")) for _, path, headers in hub.requests}
    assert sent == {("timm", f"Bearer {TOKEN}"), ("elsewhere", None)}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", f"answers 401: there is no {REPOSITORY}, or it is private (set HF_TOKEN)"),
        (401, "", "answers 401: it asks for a key, or does not take the one that it got"),
        (403, "GatedRepo", "is for those who accepted its terms: do that there, and set HF_TOKEN"),
        (403, "", "answers 403: it refuses"),
        (404, "RevisionNotFound", f"{REPOSITORY} has no revision main"),
        (404, "EntryNotFound", f"{REPOSITORY} has no file model.safetensors"),
        (404, "", "answers 404: there is no such file"),
        (429, "", "answers 429: try again later"),
        (500, "", "answers 500: try again later"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_around(
    store: WeightsStore, hub: Hub, caplog: pytest.LogCaptureFixture, status: int, code: str, said: str
) -> None:
    hub.refusal = (status, code)
    message = failure(store, hub)
    assert said in message
    address = f"{hub.endpoint}/{REPOSITORY}/resolve/main/model.safetensors"
    assert message.endswith(
        f". Without a network: download model.safetensors from {address} on another machine, then: "
        "resnext weights import model.safetensors --preset tv_in1k"
    )
    assert "\n" not in message
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_hub_with_a_password_does_not_show_it(store: WeightsStore, hub: Hub) -> None:
    hub.refusal = (403, "")
    endpoint = hub.endpoint.replace("//", "//me:secret@")
    with pytest.raises(TrainingError) as caught:
        pull(store, source_of(REPOSITORY), lambda *_: None, lambda *_: None, endpoint=endpoint, patience=BRISK)
    assert "secret" not in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(store: WeightsStore, hub: Hub) -> None:
    hub.silent = True
    said = failure(store, hub, patience=Patience(connect_s=0.2, answer_s=0.2))
    assert "nothing came for" in said or "did not answer within 0.2 s" in said


def test_nothing_is_asked_when_the_hub_is_switched_off(
    store: WeightsStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (source_of(REPOSITORY), source_of(hub.address, "tv_in1k")):
        assert "is not asked for: HF_HUB_OFFLINE is set. Without a network: " in failure(store, hub, source)
    assert not hub.requests


def test_a_server_that_is_no_hub_is_said(store: WeightsStore, hub: Hub) -> None:
    hub.commit = ""
    assert "does not answer as a Hugging Face hub does" in failure(store, hub)


def test_a_file_that_changed_on_its_way_is_not_kept(store: WeightsStore, hub: Hub) -> None:
    hub.sha256 = "0" * 64
    assert f"should have SHA-256 {'0' * 64}, what came has" in failure(store, hub)
    assert not [path for path in store.folder.iterdir() if path.name != ".lock"]


def test_a_file_that_holds_no_tensors_is_not_kept(store: WeightsStore, hub: Hub) -> None:
    hub.data = b"<html>please log in</html>"
    with pytest.raises(TensorsError, match="should be a safetensors file, it is a page of HTML"):
        get(store, hub, source_of(hub.address, "tv_in1k"))
    assert not [path for path in store.folder.iterdir() if path.name != ".lock"]


def test_a_rejected_file_is_kept_aside(store: WeightsStore, hub: Hub) -> None:
    seen: list[int] = []

    def judge(file: Path, description: Description) -> None:
        assert not store.names()  # nobody sees the weights yet
        seen.append(file.stat().st_size)
        assert description.revision == hub.commit
        raise WeightsRejected("they say hen")

    with pytest.raises(WeightsRejected) as caught:
        pull(store, source_of(REPOSITORY), lambda *_: None, judge, endpoint=hub.endpoint, patience=BRISK)
    aside = store.folder / "tv_in1k.rejected.safetensors"
    assert str(caught.value) == f"they say hen. The file is kept as {aside}, and is not used"
    assert aside.read_bytes() == hub.data
    assert (seen, store.names()) == ([len(hub.data)], [])


def test_an_address_needs_a_preset(store: WeightsStore, hub: Hub) -> None:
    source = source_of(hub.address.replace("//", "//me:secret@") + "?key=secret", "a1_in1k")
    record = get(store, hub, source).record
    assert (record.name, record.origin, record.revision) == ("plain", hub.address, None)
    assert record.preprocessing == PRESETS["a1_in1k"].preprocessing()
    assert get(store, hub, source).note == "the server has a file of the same size"
    hub.data += b" "
    assert "has changed: its file has" in failure(store, hub, source)


def test_a_licence_is_asked_for_before_the_server(store: WeightsStore, hub: Hub) -> None:
    with pytest.raises(LicenceRefused, match="--allow-noncommercial"):
        get(store, hub, source_of("fb_swsl_ig1b_ft_in1k"))
    assert not hub.requests


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ((REPOSITORY,), (REPOSITORY, "tv_in1k", "tv_in1k")),
        (("a1h_in1k",), ("timm/resnext50_32x4d.a1h_in1k", "a1h_in1k", "a1h_in1k")),
        (("me/mine", "ra_in1k"), ("me/mine", "ra_in1k", "mine")),
        (("me/mine", "ra_in1k", "other"), ("me/mine", "ra_in1k", "other")),
        (("https://host/a/b.safetensors?x=1", "tv_in1k"), ("https://host/a/b.safetensors?x=1", "tv_in1k", "b")),
    ],
)
def test_sources_are_understood(given: tuple[str], meant: tuple[str, str, str]) -> None:
    source = source_of(*given)
    assert (source.place, source.preset.name, source.name) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("me/mine",), "--preset is missing"),
        (("https://me:secret@host/b.safetensors",), "the network of https://host/b.safetensors expects"),
        (("me/mine", "best"), "there is no preset 'best'"),
        (("tv_in1k", None, None, None, 288), "is known for images of 224 pixels, got 288"),
        (("tv_in2k",), "should be a repository on the hub, as timm/resnext50_32x4d.tv_in1k"),
        (("ftp://host/file", "tv_in1k"), "got 'ftp://host/file'"),
        (("../../etc/passwd", "tv_in1k"), "got '../../etc/passwd'"),
        *((("https://" + rest, "tv_in1k"), "an address should name a server and a file") for rest in BROKEN),
        (("https://host/b.safetensors", "tv_in1k", None, "main"), "an address has none"),
    ],
)
def test_sources_that_are_none_are_said(given: tuple[object, ...], said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        source_of(*given)  # type: ignore[arg-type]  # the first is a text
    assert said in str(caught.value)
