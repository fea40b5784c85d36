import os
import shutil
import subprocess
import sys
import threading
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from training.datasets.store import (
    CURRENT_FILE,
    REPORT_FILE,
    REVISION_FOLDER,
    SUMMARY_FILE,
    DatasetDamaged,
    DatasetMounted,
    DatasetNotFound,
    DatasetStore,
    Summary,
)
from training.system.staging import STALE_STAGING_S


def staged(store: DatasetStore, fingerprint: str = "f") -> Path:
    folder = store.staging() / REVISION_FOLDER
    (folder / "images/cat").mkdir(parents=True)
    (folder / "images/cat/1.jpg").write_text(fingerprint)
    summary = Summary(created=datetime.now(UTC), images=1, classes=1, bytes=1, fingerprint=fingerprint)
    (folder / SUMMARY_FILE).write_text(summary.model_dump_json())
    (folder / REPORT_FILE).write_text('{"folder": "photos"}')
    return folder


def upload(store: DatasetStore, name: str = "photos", fingerprint: str = "f") -> int:
    folder = staged(store, fingerprint)
    try:
        return store.commit(folder, name)
    finally:
        shutil.rmtree(folder.parent)


def mounted(store: DatasetStore, name: str = "flowers") -> Path:
    folder = store.root / name
    (folder / "rose").mkdir(parents=True)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def hidden(store: DatasetStore) -> list[str]:
    return sorted(path.name for path in store.root.glob(".*") if path.name != ".lock")


def test_a_store_that_is_not_there_is_empty(store: DatasetStore) -> None:
    assert store.names() == []
    with pytest.raises(DatasetNotFound, match=r"there is no dataset 'photos'; there are: none"):
        store.resolve("photos")


def test_each_upload_is_a_revision_and_the_last_one_current(store: DatasetStore) -> None:
    assert [upload(store, fingerprint=text) for text in ("a", "b", "c")] == [1, 2, 3]
    assert store.current("photos") == 3
    assert store.resolve("photos") == (store.root / "photos/3/images", 3, "c")
    assert store.resolve("photos", 1) == (store.root / "photos/1/images", 1, "a")
    assert (store.resolve("photos").folder / "cat/1.jpg").read_text() == "c"
    assert store.report("photos", 2) == b'{"folder": "photos"}'
    assert hidden(store) == []


def test_a_revision_that_is_not_there_is_named_with_those_that_are(store: DatasetStore) -> None:
    upload(store)
    with pytest.raises(DatasetNotFound, match=r"dataset 'photos' has no revision 7; it has: 1"):
        store.resolve("photos", 7)


def test_a_mounted_dataset_is_listed_and_not_touched(store: DatasetStore) -> None:
    upload(store)
    folder = mounted(store)
    assert store.names() == ["flowers", "photos"]
    assert store.current("flowers") is None
    assert store.resolve("flowers") == (folder, None, None)
    with pytest.raises(DatasetNotFound, match="has no revision 1"):
        store.resolve("flowers", 1)
    for change in (lambda: upload(store, "flowers"), lambda: store.delete("flowers"), lambda: store.prune("flowers")):
        with pytest.raises(DatasetMounted, match="'flowers' is a folder that the operator put there"):
            change()
    assert (folder / "rose").is_dir()


@pytest.mark.parametrize("name", [".hidden", " a b", "..", "x" * 65, CURRENT_FILE, "photos\n"])
def test_folders_of_other_names_are_passed_over(store: DatasetStore, name: str) -> None:
    store.root.mkdir()
    (store.root / name).mkdir(exist_ok=True)
    assert store.names() == []
    with pytest.raises(DatasetNotFound):
        store.resolve(name)


def test_folders_whose_names_can_not_be_used_are_known(store: DatasetStore) -> None:
    for name in ("photos@home", "照片", ".hidden", "lost+found", "System Volume Information"):
        (store.root / name).mkdir(parents=True)
    assert store.names() == ["照片"]
    assert store.misnamed() == ["photos@home"]


def test_a_mounted_folder_is_found_in_any_unicode_form(store: DatasetStore) -> None:
    """macOS writes such names to a disk that keeps names as they come."""
    folder = store.root / unicodedata.normalize("NFD", "café")
    folder.mkdir(parents=True)
    name = unicodedata.normalize("NFC", "café")
    assert store.names() == [name]
    assert store.resolve(name) == (folder, None, None)
    with pytest.raises(DatasetMounted):
        upload(store, name)


def test_prune_keeps_the_current_and_the_pinned(store: DatasetStore) -> None:
    for _ in range(5):
        upload(store)
    assert store.prune("photos", {2, 4}) == [1, 3]
    assert store.revisions("photos") == [2, 4, 5]
    assert store.prune("photos") == [2, 4]
    assert upload(store) == 6
    assert hidden(store) == []


def test_delete_removes_all(store: DatasetStore) -> None:
    upload(store)
    upload(store)
    store.delete("photos")
    assert store.names() == hidden(store) == []
    with pytest.raises(DatasetNotFound):
        store.delete("photos")


def test_staging_folders_are_removed_after_a_day(store: DatasetStore) -> None:
    old, young = staged(store).parent, staged(store).parent
    age = old.stat().st_mtime - STALE_STAGING_S - 1
    os.utime(old, (age, age))
    store.staging()
    assert not old.exists()
    assert young.exists()


def test_damage_is_named(store: DatasetStore) -> None:
    upload(store)
    (store.root / "photos/1" / SUMMARY_FILE).write_text("{")
    with pytest.raises(DatasetDamaged, match=r"photos/1/summary\.json should hold the dataset's summary"):
        store.resolve("photos")
    (store.root / "photos" / CURRENT_FILE).write_text("first")
    with pytest.raises(DatasetDamaged, match=r"CURRENT should hold a revision's number, it holds 'first'"):
        store.current("photos")


def test_many_commits_at_once_lose_none(store: DatasetStore) -> None:
    folders = [staged(store, str(i)) for i in range(8)]
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda folder=folder: numbers.append(store.commit(folder, "photos")))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert store.current("photos") == 8


CRASHING = """
import os, sys
from pathlib import Path
from training.datasets.store import DatasetStore

root, actions = Path(sys.argv[1]), {
    "commit": lambda store: store.commit(next(store.root.glob(".staging-*/revision")), "photos"),
    "delete": lambda store: store.delete("photos"),
    "prune": lambda store: store.prune("photos"),
}
left = int(sys.argv[3])

def crash(event, arguments):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os._exit(9)

store = DatasetStore(root)
sys.addaudithook(crash)
actions[sys.argv[2]](store)
os._exit(0)
"""


def crashed(store: DatasetStore, action: str, step: int) -> bool:
    """Runs an action in a process that dies before its n-th step on the file system. False when it has fewer steps."""
    done = subprocess.run([sys.executable, "-c", CRASHING, store.root, action, str(step)], check=False)
    assert done.returncode in (0, 9)
    return done.returncode == 9


@pytest.mark.parametrize(("revisions", "action"), [(0, "commit"), (1, "commit"), (2, "prune"), (2, "delete")])
def test_a_crash_at_any_point_leaves_a_whole_store(tmp_path: Path, revisions: int, action: str) -> None:
    for step in range(100):
        store = DatasetStore(tmp_path / str(step))
        for _ in range(revisions):
            upload(store)
        if action == "commit":
            staged(store, "new")
        crash = crashed(store, action, step)
        if (present := store.names()) == ["photos"]:
            current = store.current("photos")
            assert current in {revisions, revisions + (action == "commit")} - {0}
            assert store.resolve("photos").folder.is_dir()
            assert upload(store) > (current or 0)
        else:
            assert present == []
            assert revisions == 0 or action == "delete"
        if not crash:
            assert step > 3
            return
    pytest.fail("it never came to its end")
