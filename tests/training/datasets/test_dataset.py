import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.datasets.folders import SIZE, flat, given, refusal, write
from tests.training.images.pictures import bmp_in_runs, jpeg_of_scans, tiff
from training.contract.manifest import Preprocessing
from training.datasets.check import check_dataset
from training.datasets.dataset import Dataset, list_dataset
from training.datasets.layout import DatasetError
from training.datasets.loading import Split, load, read_samples, write_samples
from training.datasets.report import DatasetReport
from training.images.decode import decode


def loaded(dataset: Dataset) -> tuple[DatasetReport, dict[str, Split]]:
    report, samples = check_dataset(dataset, SIZE)
    return report, load(samples, SIZE, dataset.folder / ".cache")


def names(dataset: Dataset) -> dict[str, list[str]]:
    return {split: [sample.name for sample in part.samples] for split, part in loaded(dataset)[1].items()}


def test_a_folder_of_classes_is_split_by_class(tmp_path: Path) -> None:
    dataset = list_dataset(flat(tmp_path, 20), 0.15, 0.25, seed=0)
    report = check_dataset(dataset, SIZE)[0]
    assert report.labels == ["cat", "dog"]
    assert report.images == {"train": 24, "val": 6, "test": 10}
    assert report.classes["val"] == {"cat": 3, "dog": 3}
    everything = [name for split in names(dataset).values() for name in split]
    assert sorted(everything) == [f"{label}/{i:03}.jpg" for label in ("cat", "dog") for i in range(20)]


def test_the_split_follows_the_seed_and_not_the_file_system(tmp_path: Path) -> None:
    folder = flat(tmp_path / "a")
    copy = tmp_path / "b"
    for path in sorted(folder.rglob("*.jpg"), reverse=True):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.parent.name)
    first, second, other = (
        list_dataset(folder, 0.2, 0.2, 7),
        list_dataset(copy, 0.2, 0.2, 7),
        list_dataset(folder, 0.2, 0.2, 8),
    )
    assert names(first) == names(second)
    assert names(first)["test"] != names(other)["test"]
    assert check_dataset(first, SIZE)[0].fingerprint == check_dataset(second, SIZE)[0].fingerprint
    assert check_dataset(first, SIZE)[0].fingerprint == check_dataset(other, SIZE)[0].fingerprint  # it is of the files


def test_an_image_more_moves_few_others(tmp_path: Path) -> None:
    before = names(list_dataset(flat(tmp_path, 100, ("cat", "dog", "cow")), 0.2, 0.2, 0))
    write(tmp_path / "cat" / "new.jpg", 400)
    after = names(list_dataset(tmp_path, 0.2, 0.2, 0))
    assert len(set(before["train"]) ^ set(after["train"])) <= 3


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    folder = flat(tmp_path, 12)
    for path in list(folder.rglob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
    report = check_dataset(list_dataset(folder, 0.3, 0.3, 0), SIZE)[0]
    assert report.leaks == []
    assert len(report.duplicates) == 24
    assert report.images == {"train": 16, "val": 16, "test": 16}


def test_an_image_under_two_labels_is_reported(tmp_path: Path) -> None:
    folder = flat(tmp_path, 6)
    shutil.copy(folder / "cat/000.jpg", folder / "dog/also.jpg")
    report = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0]
    assert report.conflicts == [["cat/000.jpg", "dog/also.jpg"]]
    assert report.leaks == []


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    dataset = list_dataset(given(tmp_path), 0.9, 0.05, 0)
    assert names(dataset)["val"] == [f"val/cat/{i}.jpg" for i in (0, 2, 4)] + [f"val/dog/{i}.jpg" for i in (1, 3, 5)]
    assert check_dataset(dataset, SIZE)[0].images == {"train": 6, "val": 6, "test": 6}


def test_the_same_image_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    folder = given(tmp_path)
    shutil.copy(folder / "train/cat/0.jpg", folder / "test/cat/same.jpg")
    shutil.copy(folder / "val/dog/1.jpg", folder / "val/dog/twice.jpg")
    report = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0]
    assert report.leaks == [["test/cat/same.jpg", "train/cat/0.jpg"]]
    assert report.duplicates == [["val/dog/1.jpg", "val/dog/twice.jpg"]]


def test_bad_files_are_skipped_and_named(tmp_path: Path) -> None:
    folder = given(tmp_path)
    cat = folder / "train/cat"
    (cat / "empty.jpg").touch()
    (cat / "notes.txt").write_text("not an image")
    (cat / "gone.jpg").symlink_to("nowhere.jpg")
    whole = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    dataset = list_dataset(folder, 0.2, 0.2, 0)
    report, splits = loaded(dataset)
    assert {Path(bad.path).name: bad.code for bad in report.unreadable} == {
        "cut.jpg": "corrupt_image",
        "empty.jpg": "empty_file",
        "gone.jpg": "unreadable_file",
        "notes.txt": "not_an_image",
    }
    assert report.images == {"train": 6, "val": 6, "test": 6}
    assert len(splits["train"]) == 6
    for row, sample in enumerate(splits["train"].samples):
        np.testing.assert_array_equal(splits["train"].images[row], decode(sample.path, SIZE))
    with pytest.raises(DatasetError, match=r"readable \(--strict\); 4 are not: train/cat/cut\.jpg"):
        check_dataset(dataset, SIZE, strict=True)


def test_a_bad_file_never_empties_a_split(tmp_path: Path) -> None:
    folder = flat(tmp_path, 3)
    for i in range(20):
        (folder / "cat" / f"bad{i}.jpg").write_bytes(b"broken")
    report, splits = loaded(list_dataset(folder, 0.2, 0.2, 0))
    assert len(report.unreadable) == 20
    for part in splits.values():
        assert part.labels.tolist() == [0, 1]
        for image, sample in zip(part.images, part.samples, strict=True):
            np.testing.assert_array_equal(image, decode(sample.path, SIZE))


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    folder = given(tmp_path)
    for path in (folder / "val/dog").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError) as error:
        check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)
    assert "has no readable image of 'dog': 'dog' has 0 in 3 files: 3 are not_an_image (val/dog/1.jpg: " in str(
        error.value
    )


def test_a_class_that_is_too_small_says_what_became_of_its_files(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4)
    for i in range(20):
        path = folder / "owl" / f"{i:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{i:064x}\nsize 9\n" if i else "")
    with pytest.raises(DatasetError) as error:
        check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)
    assert "class 'owl' should have at least 3 different readable images, one each for train, val and test" in str(
        error.value
    )
    assert (
        "it has 0 in 20 files: 1 is empty_file (owl/00.jpg: the file is empty), 19 are not_an_image (owl/01.jpg: "
        in str(error.value)
    )


def test_a_class_of_copies_says_of_which(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4)
    shutil.copytree(folder / "cat", folder / "other")
    shutil.copy(folder / "other/000.jpg", folder / "other/again.jpg")
    with pytest.raises(
        DatasetError, match=r"it has 0 in 5 files: 5 have the same bytes as in 'cat' \(other/000.jpg as cat/"
    ):
        check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)


def test_load_gives_what_decode_gives(tmp_path: Path) -> None:
    report, splits = loaded(list_dataset(flat(tmp_path / "data", 10), 0.2, 0.2, 0))
    for split, part in splits.items():
        assert part.images.shape == (report.images[split], 32, 32, 3)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        for image, label, sample in zip(part.images, part.labels, part.samples, strict=True):
            np.testing.assert_array_equal(image, decode(sample.path, SIZE))
            assert report.labels[label] == sample.path.parent.name


def test_a_check_says_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset(list_dataset(flat(tmp_path, 10), 0.2, 0.2, 0), SIZE, progress=lambda *at: seen.append(at))
    assert seen == [(i, 20) for i in range(1, 21)]


def test_checked_files_can_be_kept(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 4, ("cat", "猫"))
    path = Path(os.fsdecode(os.fsencode(folder / "cat") + b"/caf\xe9.jpg"))
    shutil.copy(folder / "cat/000.jpg", path)
    samples = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[1]
    write_samples(tmp_path / "samples.json", samples)
    assert read_samples(tmp_path / "samples.json") == samples
    assert path in {sample.path for sample in samples}


@pytest.mark.parametrize("kept", ["", '[["a/1.jpg", "1.jpg"', "[1]", '[["a/1.jpg"]]'])
def test_a_damaged_list_of_checked_files_is_named(tmp_path: Path, kept: str) -> None:
    (tmp_path / "samples.json").write_text(kept)
    with pytest.raises(DatasetError, match=r"samples\.json is damaged: .*\. Remove checking\.json beside it"):
        read_samples(tmp_path / "samples.json")


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_file_that_changed_after_the_check_is_refused(tmp_path: Path, change: str) -> None:
    samples = check_dataset(list_dataset(flat(tmp_path, 4), 0.2, 0.2, 0), SIZE)[1]
    if change == "gone":
        samples[0].path.unlink()
    else:
        write(samples[0].path, 99)
    with pytest.raises(DatasetError, match=re.escape(str(samples[0].path))):
        load(samples, SIZE, tmp_path / ".cache")
    assert load(samples, SIZE, tmp_path / ".cache", ("test",))["test"].labels.tolist() == [0, 1]


def test_pixels_over_the_memory_budget_go_to_disk(tmp_path: Path) -> None:
    samples = check_dataset(list_dataset(flat(tmp_path / "data", 6), 0.2, 0.2, 0), SIZE)[1]
    in_memory, on_disk = (
        load(samples, SIZE, tmp_path / "cache", memory_budget=budget)["train"].images for budget in (10**9, 1)
    )
    assert isinstance(on_disk, np.memmap)
    assert not isinstance(in_memory, np.memmap)
    np.testing.assert_array_equal(in_memory, on_disk)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing that anyone must clean up


def test_a_cache_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    samples = check_dataset(list_dataset(flat(tmp_path / "data", 3), 0.2, 0.2, 0), SIZE)[1]
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"file/cache should take 6144 bytes"):
        load(samples, SIZE, tmp_path / "file" / "cache", memory_budget=1)


def test_the_fingerprint_knows_content_label_and_given_split(tmp_path: Path) -> None:
    folder = given(tmp_path)
    fingerprints = [check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0].fingerprint]
    write(folder / "test/cat/0.jpg", 100)
    fingerprints.append(check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0].fingerprint)
    (folder / "train/cat").rename(folder / "train/tmp")
    (folder / "train/dog").rename(folder / "train/cat")
    (folder / "train/tmp").rename(folder / "train/dog")
    fingerprints.append(check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0].fingerprint)
    (folder / "val").rename(folder / "tmp")
    (folder / "test").rename(folder / "val")
    (folder / "tmp").rename(folder / "test")
    fingerprints.append(check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0].fingerprint)
    assert len(set(fingerprints)) == 4


def test_clutter_is_passed_over_and_subfolders_are_read(tmp_path: Path) -> None:
    folder = flat(tmp_path, 3)
    for name in (".DS_Store", "cat/.hidden.jpg", "cat/Thumbs.db", "cat/.git/x.jpg", "__MACOSX/cat/._0.jpg", "LICENSE"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"clutter")
    write(folder / "cat/2024/may/deep.jpg", 50)
    report = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE, strict=True)[0]
    assert report.labels == ["cat", "dog"]
    assert sum(report.images.values()) == 7


def test_names_are_compared_in_nfc(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "žluťoučký")
    composed = unicodedata.normalize("NFC", decomposed)
    one, two = (flat(tmp_path / form, 4, (name, "猫")) for form, name in (("d", decomposed), ("c", composed)))
    reports = [check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0] for folder in (one, two)]
    assert reports[0].labels == reports[1].labels == [composed, "猫"]
    assert reports[0].fingerprint == reports[1].fingerprint
    (one / composed).mkdir()
    assert "two folders that both spell" in refusal(one)


def test_names_that_are_no_utf8_reach_the_report(tmp_path: Path) -> None:
    folder = flat(tmp_path, 4)
    Path(os.fsdecode(os.fsencode(folder / "cat") + b"/caf\xe9.jpg")).write_bytes(b"broken")
    report = check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)[0]
    assert [bad.path for bad in report.unreadable] == ["cat/caf\\udce9.jpg"]
    assert report.model_dump_json()


def test_a_split_without_class_folders_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / split / "0.jpg", 0)
    assert "should hold at least two class folders, it has no folder and 1 file ('0.jpg')" in refusal(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    assert "two folders for val: 'val' and 'valid'" in refusal(given(tmp_path, ("train", "val", "valid", "test")))


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    assert "at least two class folders, it has only 'cat'" in refusal(flat(tmp_path, 5, ("cat",)))


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    (flat(tmp_path, 5) / "cow").mkdir()
    assert "images of every class, 'cow' holds no file" in refusal(tmp_path)


def test_a_class_that_a_split_lacks_is_refused(tmp_path: Path) -> None:
    shutil.rmtree(given(tmp_path) / "test/dog")
    assert "test should have images of every class, it has none of 'dog'" in refusal(tmp_path)


def test_a_class_that_train_does_not_know_is_refused(tmp_path: Path) -> None:
    write(given(tmp_path) / "val/cow/0.jpg", 0)
    assert "has 'cow', which" in refusal(tmp_path)


def test_too_few_images_to_split_are_refused(tmp_path: Path) -> None:
    folder = flat(tmp_path, 3)
    shutil.copy(folder / "dog/000.jpg", folder / "dog/001.jpg")
    with pytest.raises(DatasetError, match=r"class 'dog' should have at least 3 different readable images.* it has 2"):
        check_dataset(list_dataset(folder, 0.2, 0.2, 0), SIZE)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is a file" in refusal(tmp_path / "file")


def test_a_file_that_pillow_does_not_convert_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = given(tmp_path)
    (folder / "train/cat/premultiplied.tif").write_bytes(
        tiff(np.array([120, 255] * 32 * 32, np.uint8), channels=2, alpha=1)
    )
    (folder / "train/cat/signed.tif").write_bytes(tiff(np.zeros((32, 32), np.int16), bits=16, signed=True))
    Image.new("P", (8, 8)).save(folder / "train/cat/odd.gif")
    convert = Image.Image.convert

    def fails_for_gif(image: Image.Image, *arguments: Any) -> Image.Image:  # Any: Pillow's own
        if image.format == "GIF":
            raise RecursionError("a decoder of tomorrow")
        return convert(image, *arguments)

    monkeypatch.setattr(Image.Image, "convert", fails_for_gif)
    report, splits = loaded(list_dataset(folder, 0.2, 0.2, 0))
    assert {bad.path: bad.code for bad in report.unreadable} == {
        "train/cat/odd.gif": "corrupt_image",
        "train/cat/signed.tif": "unsupported_pixels",
    }
    assert len(splits["train"]) == report.images["train"] == 7


def test_the_limit_on_pixels_is_that_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = list_dataset(given(tmp_path), 0.2, 0.2, 0)
    Image.new("RGB", (100, 100), "red").save(tmp_path / "train/cat/0.jpg")
    monkeypatch.setenv("RESNEXT_MAX_PIXELS", "9999")
    report, splits = loaded(dataset)
    assert [str(bad) for bad in report.unreadable] == [
        "train/cat/0.jpg  image_too_large: the limit is 9999 pixels, the image has 100 x 100"
    ]
    monkeypatch.setenv("RESNEXT_MAX_PIXELS", "10000")
    report, splits = loaded(dataset)
    assert (report.unreadable, len(splits["train"])) == ([], 6)
    samples = check_dataset(dataset, SIZE)[1]
    monkeypatch.setenv("RESNEXT_MAX_PIXELS", "9999")
    with pytest.raises(DatasetError, match=r"cat/0\.jpg was readable when .* the limit is 9999 pixels"):
        load(samples, SIZE, tmp_path / ".cache")


def test_what_takes_too_long_or_is_not_named_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = list_dataset(given(tmp_path), 0.2, 0.2, 0)
    (tmp_path / "train/cat/0.jpg").write_bytes(jpeg_of_scans(9_000, 7_000, 1_000))
    (tmp_path / "train/dog/1.jpg").write_bytes(bmp_in_runs())
    report, _ = loaded(dataset)
    assert {bad.path: bad.code for bad in report.unreadable} == {
        "train/cat/0.jpg": "image_too_large",
        "train/dog/1.jpg": "not_an_image",
    }
    monkeypatch.setenv("RESNEXT_FORMATS", "jpeg,bmp-rle")
    assert [bad.path for bad in loaded(dataset)[0].unreadable] == ["train/cat/0.jpg"]


def shades(low: int, high: int) -> Image.Image:
    return Image.fromarray(np.linspace(low, high, 32 * 32).reshape(32, 32).astype(np.uint16))


def test_pictures_that_decode_to_nothing_are_listed_and_used(tmp_path: Path) -> None:
    cat = given(tmp_path) / "train/cat"
    for number in range(2):
        strokes = np.full((32, 32, 4), (255, 255, 255, 0), np.uint8)
        strokes[4 + number : 20, 10:13, 3] = 255
        Image.fromarray(strokes).save(cat / f"strokes{number}.png")
    shades(0, 255).save(cat / "8-in-16.png")
    shades(0, 4095).save(cat / "12-in-16.png")
    shades(240 * 256, 65535).save(cat / "bright.png")
    shades(0, 65535).save(cat / "full.png")
    report, splits = loaded(list_dataset(tmp_path, 0.2, 0.2, 0))
    assert {odd.path.rpartition("/")[2]: odd.code for odd in report.suspicious} == {
        "strokes0.png": "one_colour",
        "strokes1.png": "one_colour",
        "8-in-16.png": "one_colour",
        "12-in-16.png": "almost_black",
        "bright.png": "almost_white",
    }
    assert (len(splits["train"]), report.unreadable) == (12, [])
    assert any(odd.message.startswith("decodes to one color, rgb(255, 255, 255)") for odd in report.suspicious)


def test_the_same_picture_in_other_bytes_is_listed(tmp_path: Path) -> None:
    folder = given(tmp_path)
    with Image.open(folder / "train/cat/0.jpg") as image:
        image.save(folder / "test/dog/again.png")
    shutil.copy(folder / "train/dog/1.jpg", folder / "train/dog/copy.jpg")
    report = check_dataset(list_dataset(folder, 0.2, 0.2, 0), Preprocessing(height=64, width=64))[0]
    assert [str(odd) for odd in report.suspicious] == [
        "test/dog/again.png  same_picture: decodes to the same pixels as train/cat/0.jpg"
    ]
    assert report.duplicates == [["train/dog/1.jpg", "train/dog/copy.jpg"]]


def test_a_report_of_before_is_read(tmp_path: Path) -> None:
    report = check_dataset(list_dataset(given(tmp_path), 0.2, 0.2, 0), SIZE)[0]
    old = report.model_dump(exclude={"suspicious"})
    assert DatasetReport.model_validate(old) == report
