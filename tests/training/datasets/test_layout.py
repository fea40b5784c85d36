import shutil
from pathlib import Path

import pytest

from tests.training.datasets.folders import SIZE, flat, given, refusal, write
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.layout import DatasetError
from training.datasets.report import DatasetReport


def parts(folder: Path, *names: str, count: int = 6, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Makes folders of classes, with no image twice."""
    for rank, name in enumerate(names):
        for i in range(count):
            write(folder / name / labels[i % len(labels)] / f"{i}.jpg", rank * count + i)
    return folder


def report(folder: Path) -> DatasetReport:
    return check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0]


@pytest.mark.parametrize(
    "names",
    [("Training", "Validation", "Testing"), ("train_images", "val_images", "test_images"), ("TRAIN", "dev", "tests")],
)
def test_splits_are_known_by_any_usual_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = report(given(tmp_path, names))
    assert found.labels == ["cat", "dog"]
    assert found.images == {"train": 6, "val": 6, "test": 6}
    assert found.dealt == []


@pytest.mark.parametrize(
    ("names", "images", "dealt"),
    [
        (("train", "val"), {"train": 16, "val": 20, "test": 4}, ["test"]),
        (("Training", "Testing"), {"train": 16, "val": 4, "test": 20}, ["val"]),
        (("train",), {"train": 12, "val": 4, "test": 4}, ["val", "test"]),
    ],
)
def test_a_missing_split_is_dealt_from_train(
    tmp_path: Path, names: tuple[str, ...], images: dict[str, int], dealt: list[str]
) -> None:
    folder = parts(tmp_path, *names, count=20)
    found = report(folder)
    assert found.images == images
    assert found.dealt == dealt
    assert found.classes["train"]["cat"] == found.classes["train"]["dog"]
    assert found.fingerprint == report(folder).fingerprint


def test_copies_stay_together_where_one_split_is_dealt(tmp_path: Path) -> None:
    folder = parts(tmp_path, "train", "val", count=20)
    for path in list((folder / "train").rglob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
    found = report(folder)
    assert found.images == {"train": 32, "val": 20, "test": 8}
    assert found.leaks == []


def test_each_class_needs_an_image_for_each_dealt_split(tmp_path: Path) -> None:
    folder = parts(tmp_path, "train", "val", count=2)
    write(folder / "train/cat/more.jpg", 50)
    with pytest.raises(
        DatasetError, match=r"class 'dog' should have at least 2 .* one each for train and test; it has 1 in"
    ):
        report(folder)


@pytest.mark.parametrize("label", ["a\u202egnp.exe", "cat\u200b", "cat\nfish"])
def test_a_class_name_that_nobody_can_read_is_refused(tmp_path: Path, label: str) -> None:
    message = refusal(parts(tmp_path, ".", labels=("dog", label)))
    assert "has a class folder whose name holds U+" in message
    assert message.isprintable()


def test_no_train_is_refused(tmp_path: Path) -> None:
    assert "should have a folder train beside 'test', 'val', it has none" in refusal(parts(tmp_path, "val", "test"))


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("2019", "2020"), ("A", "B", "C"), ("jan", "feb")])
def test_parts_that_have_the_same_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    message = refusal(parts(tmp_path, *names))
    assert "can be read in two ways" in message
    assert "whose classes are 'cat', 'dog'" in message
    assert "name them train, val and test" in message
    assert "if they are classes, put their pictures into them directly" in message


def test_a_stray_file_does_not_hide_that(tmp_path: Path) -> None:
    parts(tmp_path, "fold1", "fold2", "fold3", labels=("cat", "dog", "cow"))
    (tmp_path / "fold1/labels.csv").write_text("file,label\n")
    shutil.rmtree(tmp_path / "fold2/cow")
    write(tmp_path / "fold3/cover.jpg", 99)
    assert "'fold1' and 'fold2' as classes" in refusal(tmp_path)


def test_a_stray_picture_in_each_does_not_hide_that_either(tmp_path: Path) -> None:
    for name in ("fold1", "fold2"):
        write(parts(tmp_path, name) / name / "cover.jpg", 99)
    assert "'fold1' and 'fold2' as classes" in refusal(tmp_path)


def test_folders_around_the_same_folders_do_not_hide_that(tmp_path: Path) -> None:
    assert "'fold1' and 'fold2' as classes" in refusal(parts(tmp_path, "fold1/fold1", "fold2/images"))


@pytest.mark.parametrize(
    "names",
    [("train/train", "test/test"), ("train/images", "test/images"), ("seg_train/seg_train", "seg_test/seg_test")],
)
def test_a_folder_around_a_splits_classes_is_taken_off(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = parts(tmp_path, *names, count=20)
    (folder / names[0] / "about.txt").write_text("x")
    found = report(folder)
    assert found.labels == ["cat", "dog"]
    assert found.images == {"train": 16, "val": 4, "test": 20}
    assert found.passed_over == [f"{names[0]}/about.txt"]
    assert found.notes == []


def test_what_else_lies_beside_splits_of_a_common_word_is_named(tmp_path: Path) -> None:
    folder = parts(tmp_path, "seg_train/seg_train", "seg_test/seg_test")
    write(folder / "seg_pred/seg_pred/1.jpg", 90)
    assert "'seg_test', 'seg_train' would be splits, beside them 'seg_pred' would be classes" in refusal(folder)


def test_a_folder_around_splits_classes_does_not_make_a_class_of_it(tmp_path: Path) -> None:
    write(parts(tmp_path, "train/train") / "unlabeled/1.jpg", 90)
    assert "'train' would be splits, beside them 'unlabeled' would be classes" in refusal(tmp_path)


def test_a_split_without_classes_is_refused_with_a_way_out(tmp_path: Path) -> None:
    write(parts(tmp_path, "entrenamiento") / "prueba/1.jpg", 90)
    message = refusal(tmp_path)
    assert "prueba should have images of every class, it has none of 'cat', 'dog'" in message
    assert "or move that folder away: test is then dealt from train" in message


def test_a_folder_without_class_folders_is_told_what_it_holds(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"cat.{i}.jpg", i)
    message = refusal(tmp_path)
    assert "at least two class folders, it has no folder and 4 files" in message
    assert "('cat.0.jpg', 'cat.1.jpg', 'cat.2.jpg' and 1 more)" in message


def test_classes_that_differ_in_case_alone_are_told(tmp_path: Path) -> None:
    found = report(flat(tmp_path, 4, ("Cat", "cat", "dog")))
    assert found.labels == ["Cat", "cat", "dog"]
    assert found.notes == ["read as different classes, though only their case or blanks differ: 'Cat', 'cat'"]


def test_pictures_beside_a_classs_folders_are_told(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4)
    for name in ("old", "new"):
        write(folder / "cat" / name / "1.jpg", 70 + len(name) + ord(name[0]))
    (note,) = report(folder).notes
    assert note.endswith("the folders in it: 'cat' ('new', 'old') and beside them")


def test_parts_of_train_are_no_classes_either(tmp_path: Path) -> None:
    assert "can be read in two ways" in refusal(
        parts(tmp_path, "train/fold1", "train/fold2", "test/fold1", "test/fold2")
    )


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    message = refusal(parts(tmp_path, "cat", "dog", labels=("Training", "test")))
    assert "each with the splits 'test', 'train': the splits should be the outer folders" in message


def test_what_is_no_split_beside_splits_is_named(tmp_path: Path) -> None:
    folder = given(tmp_path)
    (folder / "train/labels.csv").write_text("file,label\n")
    write(folder / "unlabeled/1.jpg", 90)
    message = refusal(folder)
    assert "'test', 'train', 'val' would be splits, beside them 'unlabeled' would be classes" in message
    assert "Move 'unlabeled' away" in message


def test_one_split_beside_something_else_is_refused_too(tmp_path: Path) -> None:
    write(parts(tmp_path, "train") / "unlabeled/1.jpg", 90)
    assert "'train' would be splits, beside them 'unlabeled' would be classes" in refusal(tmp_path)


def test_flat_splits_are_never_classes(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4, ("train", "val", "test", "unlabeled"))
    assert "'test', 'train', 'val' would be splits" in refusal(folder)


def test_a_stray_file_does_not_make_a_class_of_a_split(tmp_path: Path) -> None:
    folder = given(tmp_path)
    (folder / "train/labels.csv").write_text("file,label\n")
    write(folder / "val/loose.jpg", 90)
    found = report(folder)
    assert found.labels == ["cat", "dog"]
    assert found.passed_over == ["train/labels.csv", "val/loose.jpg"]


def test_a_class_may_be_called_train_and_it_is_said(tmp_path: Path) -> None:
    found = report(flat(tmp_path, 4, ("plane", "train")))
    assert found.labels == ["plane", "train"]
    assert found.notes == ["read as a class and not as a split, as its neighbours are classes: 'train'"]


def test_pictures_in_folders_of_a_class_are_its_own(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4)
    write(folder / "cow/images/1.jpg", 60)
    write(folder / "cow/images/2.jpg", 61)
    write(folder / "cow/images/3.jpg", 62)
    assert report(folder).classes["train"]["cow"] == 1
    assert report(folder).notes == []


def test_a_class_made_of_several_folders_is_named(tmp_path: Path) -> None:
    parts(tmp_path, "labeled")
    for i in range(4):
        write(tmp_path / "unlabeled" / f"{i}.jpg", 60 + i)
    found = report(tmp_path)
    assert found.labels == ["labeled", "unlabeled"]
    assert found.notes == ["read as one class, with the pictures of the folders in it: 'labeled' ('cat', 'dog')"]


@pytest.mark.parametrize("prefix", ["flowers", "outer/flowers"])
def test_a_folder_around_all_is_taken_off(tmp_path: Path, prefix: str) -> None:
    inner = report(flat(tmp_path / prefix, 4))
    (tmp_path / "README.txt").write_text("about")
    write(tmp_path / prefix / "cover.jpg", 99)
    found = report(tmp_path)
    assert (found.root, found.labels, found.fingerprint) == (prefix, ["cat", "dog"], inner.fingerprint)
    assert found.passed_over == ["README.txt", f"{prefix}/cover.jpg"]


def test_splits_within_a_folder_of_a_splits_name_are_found(tmp_path: Path) -> None:
    assert report(given(tmp_path / "test")).root == ""
    assert report(tmp_path).root == "test"


def test_pictures_beside_class_folders_are_listed(tmp_path: Path) -> None:
    write(flat(tmp_path, 4) / "loose.jpg", 99)
    assert report(tmp_path).passed_over == ["loose.jpg"]


def test_reports_of_earlier_releases_are_read(tmp_path: Path) -> None:
    old = report(flat(tmp_path, 4)).model_dump(exclude={"root", "dealt", "passed_over", "notes"})
    assert DatasetReport.model_validate(old).passed_over == []


@pytest.mark.parametrize(
    "name",
    [
        *("lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "@tmp", "@eaDir", "#snapshot"),
        *("__pycache__", ".ipynb_checkpoints", "__MACOSX", "FOUND.000", ".Trash-1000"),
    ],
)
def test_what_systems_leave_is_clutter(tmp_path: Path, name: str) -> None:
    folder = flat(tmp_path, 4)
    for place in (folder / name / "x", folder / "cat" / name / "x"):
        place.mkdir(parents=True)
        (place / "file").write_text("x")
    found = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE, strict=True)[0]
    assert found.labels == ["cat", "dog"]
    assert found.passed_over == []
