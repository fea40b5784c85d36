import gzip
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.training.weights.stand_in_hub import Hub, stand_in_hub
from training.errors import TrainingError
from training.weights import download
from training.weights.download import Patience, Remote, downloaded, without_secrets

DATA = os.urandom(300_000)
BRISK = Patience(connect_s=5, answer_s=5, silence_s=5, pause_s=0)
HASTY = Patience(answer_s=0.2, silence_s=0.2, tries=1)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with stand_in_hub(DATA) as hub:
        yield hub


def remote(hub: Hub) -> Remote:
    return Remote(hub.address, sha256=hub.sha256, size=len(DATA))


def fetch(remote: Remote, folder: Path, patience: Patience = BRISK) -> bytes:
    with downloaded(remote, folder, lambda *_: None, patience) as file:
        return file.read_bytes()


def failure(remote: Remote, folder: Path, patience: Patience = BRISK) -> str:
    """Returns what is said of a download that has to fail."""
    with pytest.raises(TrainingError) as caught:
        fetch(remote, folder, patience)
    return str(caught.value)


def test_a_file_comes_whole_and_leaves_nothing_behind(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with downloaded(remote(hub), tmp_path / "weights", lambda *at: seen.append(at), BRISK) as file:
        assert file.read_bytes() == DATA
        assert file.is_relative_to(tmp_path / "weights")
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert not list((tmp_path / "weights").iterdir())


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000, 50_000]
    assert fetch(remote(hub), tmp_path) == DATA
    assert hub.ranges() == ["", "bytes=100000-", "bytes=150000-"]


def test_the_next_download_goes_on_where_the_last_one_gave_up(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000, 0]
    said = failure(remote(hub), tmp_path, Patience(tries=2, pause_s=0))
    assert said.endswith("The first 100000 bytes are kept for a day: pull again to go on")
    assert fetch(remote(hub), tmp_path) == DATA
    assert hub.ranges()[-1] == "bytes=100000-"
    assert not list(tmp_path.iterdir())


def test_a_beginning_is_kept_while_the_server_fails(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000]
    failure(remote(hub), tmp_path, Patience(tries=1))
    hub.refusal = (503, "")
    assert "answers 503: try again later. The first 100000 bytes" in failure(remote(hub), tmp_path)
    hub.refusal = None
    assert fetch(remote(hub), tmp_path) == DATA
    assert hub.ranges()[-1] == "bytes=100000-"


def test_the_rest_of_another_file_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    plain = Remote(hub.address, etag=hub.etag)
    hub.breaks = [100_000]
    failure(plain, tmp_path, Patience(tries=1))
    hub.data, hub.etag = DATA[::-1], '"v2"'
    assert fetch(plain, tmp_path) == DATA[::-1]
    assert hub.ranges() == ["", "bytes=100000-"]
    assert hub.requests[-1][2]["if-range"] == '"v1"'


def test_a_file_that_cannot_be_told_from_others_is_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000]
    assert "kept" not in failure(Remote(hub.address), tmp_path)
    assert not list(tmp_path.iterdir())
    assert fetch(Remote(hub.address), tmp_path) == DATA
    assert hub.ranges() == ["", ""]


def test_a_file_with_another_hash_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    wrong = Remote(hub.address, sha256="0" * 64, size=len(DATA))
    said = failure(wrong, tmp_path)
    assert f"should have SHA-256 {'0' * 64}, what came has {hub.sha256}" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "said"),
    [(300_001, "should have 300001 bytes, 300000 came"), (9, "should have at most 9 bytes, it has more")],
)
def test_a_file_of_another_size_is_not_kept(hub: Hub, tmp_path: Path, size: int, said: str) -> None:
    assert said in failure(Remote(hub.address, size=size), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_without_end_is_given_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.unsized = True
    assert fetch(Remote(hub.address), tmp_path) == DATA
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 200_000)
    assert "should have at most 200000 bytes, it has more" in failure(Remote(hub.address), tmp_path)
    hub.unsized = False  # a file that says how large it is, is not begun
    assert "should have at most 200000 bytes, it has more" in failure(remote(hub), tmp_path)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_came(hub: Hub, tmp_path: Path) -> None:
    def stop(received: int, _: int | None) -> None:
        if received > 100_000:
            raise KeyboardInterrupt

    def stop_behind_it() -> None:
        with downloaded(remote(hub), tmp_path, lambda *_: None, BRISK):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), downloaded(remote(hub), tmp_path, stop, BRISK):
        pass
    with pytest.raises(KeyboardInterrupt):
        stop_behind_it()
    assert fetch(remote(hub), tmp_path) == DATA
    assert [bool(asked) for asked in hub.ranges()] == [False, True]  # the third finds all of it here
    assert not list(tmp_path.iterdir())


def test_a_beginning_is_kept_for_a_day(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [1000, 1000]
    failure(remote(hub), tmp_path, Patience(tries=1))
    (begun,) = tmp_path.iterdir()
    yesterday = time.time() - 25 * 3600
    os.utime(begun, (yesterday, yesterday))
    failure(Remote(hub.address, etag=hub.etag), tmp_path, Patience(tries=1))  # another one
    (left,) = tmp_path.iterdir()
    assert left != begun


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "answers 401: it asks for a key"),
        (403, "answers 403: it refuses"),
        (404, "answers 404: there is no such file"),
        (429, "answers 429: try again later"),
        (500, "answers 500: try again later"),
    ],
)
def test_refusals_are_said(hub: Hub, tmp_path: Path, status: int, said: str) -> None:
    hub.refusal = (status, "")
    assert said in failure(remote(hub), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_that_never_answers_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.silent = True
    said = failure(remote(hub), tmp_path, HASTY)
    assert "nothing came for 0.2 s" in said or "did not answer within 0.2 s" in said


def test_a_server_that_falls_silent_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.silent_after = 1000
    said = failure(remote(hub), tmp_path, HASTY)
    assert "nothing came for 0.2 s. The first 1000 bytes are kept" in said


def test_a_server_that_drips_is_given_up(hub: Hub, tmp_path: Path) -> None:
    said = failure(remote(hub), tmp_path, Patience(window_s=0, window_bytes=10**9, tries=1))
    assert "is too slow" in said


def test_servers_that_cannot_be_reached_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}/file"
    assert failure(Remote(closed), tmp_path) == f"{closed} cannot be reached: Connection refused"

    def unknown(*_: object) -> None:  # the system's own answer takes 15 s where no name server answers
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    said = failure(Remote("http://nowhere.invalid/file"), tmp_path)
    assert said == "http://nowhere.invalid/file cannot be reached: Name or service not known"
    assert not list(tmp_path.iterdir())


def test_a_packed_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.data, hub.packed = gzip.compress(DATA), True
    assert "should come as it is, it comes packed" in failure(Remote(hub.address), tmp_path)


def test_a_full_disk_keeps_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [1000]
    failure(remote(hub), tmp_path, Patience(tries=1))
    (begun,) = tmp_path.glob("*/tensors")
    begun.unlink()
    begun.symlink_to("/dev/full")
    assert failure(remote(hub), tmp_path) == "the disk of the weights folder is full, nothing was kept"
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_fit_is_not_begun(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    assert failure(remote(hub), tmp_path).endswith(f"should have 300000 bytes free for {hub.address}, it has 5")
    assert not list(tmp_path.iterdir())


def test_two_downloads_of_a_file_do_not_meet(hub: Hub, tmp_path: Path) -> None:
    with downloaded(remote(hub), tmp_path, lambda *_: None, BRISK) as file:
        assert "is being downloaded by another process" in failure(remote(hub), tmp_path)
        assert file.read_bytes() == DATA


def test_addresses_are_shown_without_secrets(hub: Hub, tmp_path: Path) -> None:
    assert without_secrets("https://me:secret@host/a/b.safetensors?key=1#x") == "https://host/a/b.safetensors"
    hub.refusal = (403, "")
    said = failure(Remote(f"{hub.address}?key=secret".replace("//", "//me:secret@")), tmp_path)
    assert "secret" not in said
