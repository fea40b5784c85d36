import os
import socket
from pathlib import Path

import pytest

from tests.training.datasets.folders import SIZE, flat, write
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.layout import DatasetError
from training.datasets.listing import files_below
from training.datasets.loading import load
from training.datasets.report import DatasetReport


def report(folder: Path) -> DatasetReport:
    return check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0]


def images(report: DatasetReport) -> dict[str, int]:
    return {label: sum(counts[label] for counts in report.classes.values()) for label in report.labels}


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 4)
    for i in range(5):
        write(tmp_path / "elsewhere/deep" / f"{i}.jpg", 60 + i)
    (folder / "cat/more").symlink_to(tmp_path / "elsewhere")
    found = report(folder)
    assert images(found) == {"cat": 9, "dog": 4}
    assert found.unreadable == []


@pytest.mark.parametrize("target", ["..", ".", "../..", "../cat", "../../data/cat"])
def test_a_link_that_leads_round_is_listed_and_ends(tmp_path: Path, target: str) -> None:
    folder = flat(tmp_path / "data", 4)
    (folder / "cat/loop").symlink_to(target)
    found = report(folder)
    assert images(found) == {"cat": 4, "dog": 4}
    assert list(map(str, found.unreadable)) == [
        "cat/loop  unreadable_file: it should be a file, it is a link to a folder"
    ]


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 4)
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "1.jpg", 60)
    write(two / "2.jpg", 61)
    (one / "other").symlink_to(two)
    (two / "other").symlink_to(one)
    (folder / "cat/more").symlink_to(one)
    found = report(folder)
    assert images(found) == {"cat": 6, "dog": 4}
    assert [bad.path for bad in found.unreadable] == ["cat/more/other/other"]


def test_many_links_to_each_other_are_read_once(tmp_path: Path) -> None:
    folders = [tmp_path / "cat" / str(i) for i in range(12)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").touch()
    for folder in folders:
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    assert len(list(files_below(tmp_path / "cat"))) == 12 + 144


def test_a_class_that_is_a_link_to_all_is_no_class(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 4)
    (folder / "self").symlink_to(".")
    (folder / "around").symlink_to(tmp_path)
    found = report(folder)
    assert images(found) == {"cat": 4, "dog": 4}
    assert found.passed_over == ["around", "self"]


def test_wrapping_folders_that_lead_round_end(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one/in").symlink_to(tmp_path / "two")
    (tmp_path / "two/in").symlink_to(tmp_path / "one")
    with pytest.raises(DatasetError, match="should hold at least two class folders"):
        list_dataset(tmp_path / "one", 0.2, 0.2, 0)


def test_only_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flat(tmp_path / "data", 4)
    os.mkfifo(folder / "cat/pipe.jpg")
    (folder / "cat/linked.jpg").symlink_to("pipe.jpg")
    (folder / "dog/zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the path of a socket has at most 107 bytes
        listener.bind("dog/socket.jpg")
        found = report(folder)
    assert {bad.path: (bad.code, bad.message) for bad in found.unreadable} == {
        "cat/pipe.jpg": ("unreadable_file", "it should be a file, it is a named pipe"),
        "cat/linked.jpg": ("unreadable_file", "it should be a file, it is a link to a named pipe"),
        "dog/zero.jpg": ("unreadable_file", "it should be a file, it is a link to a device"),
        "dog/socket.jpg": ("unreadable_file", "it should be a file, it is a socket"),
    }


def test_a_file_that_became_a_pipe_does_not_hold_up_the_training(tmp_path: Path) -> None:
    samples = check_dataset(list_dataset(flat(tmp_path / "data", 4), 0.2, 0.2, 0), SIZE)[1]
    samples[0].path.unlink()
    os.mkfifo(samples[0].path)
    with pytest.raises(DatasetError, match="it should be a file, it is a named pipe"):
        load(samples, SIZE, tmp_path / ".cache")
