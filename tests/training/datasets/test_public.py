import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from training.contract.manifest import Preprocessing
from training.datasets import public as public_datasets
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.layout import DatasetError
from training.datasets.public import make_digits, make_fashion_mnist, make_flowers
from training.system.files import sha256

SIZE = Preprocessing(height=32, width=32)


def idx_files(folder: Path, train: int = 200, test: int = 60) -> NDArray[np.uint8]:
    """Writes enlarged digits as the four files of Fashion-MNIST. Returns the training images."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels.reshape(-1, 8, 8) * 15, np.ones((1, 3, 3))).astype(np.uint8)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    folder.mkdir()
    for name, part in (("train", slice(0, train)), ("t10k", slice(train, train + test))):
        header = np.array([2051, len(images[part]), 28, 28], ">u4").tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images[part].tobytes()))
        header = np.array([2049, len(images[part])], ">u4").tobytes()
        body = labels[part].astype(np.uint8).tobytes()
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + body))
    result: NDArray[np.uint8] = images[:train]
    return result


def flowers_archive(path: Path, extra: str | None = None) -> Path:
    """Makes a small flower_photos.tgz: pieces of a real photograph in two classes, and the license."""
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    with tarfile.open(path, "w:gz") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        add("flower_photos/LICENSE.txt", b"CC-BY")
        for i in range(10):
            buffer = io.BytesIO()
            photo.crop((i * 50, i * 30, i * 50 + 64, i * 30 + 48)).save(buffer, "JPEG")
            add(f"flower_photos/{('daisy', 'tulips')[i % 2]}/{i}.jpg", buffer.getvalue())
        if extra:
            add(extra, b"x")
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_digits_are_the_true_pixels(tmp_path: Path) -> None:
    counts = make_digits(tmp_path / "digits")
    assert sum(counts.values()) == 1797
    assert list(counts) == list("0123456789")
    pixels, labels = load_digits(return_X_y=True)
    image = np.asarray(Image.open(tmp_path / "digits" / str(labels[42]) / "0042.png"))
    np.testing.assert_array_equal(image, np.minimum(pixels[42].reshape(8, 8) * 16, 255))
    report = check_dataset(list_dataset(tmp_path / "digits", 0.15, 0.15, 0), SIZE, strict=True)[0]
    assert report.images == {"train": 1259, "val": 269, "test": 269}
    make_digits(tmp_path / "again")
    assert everything(tmp_path / "digits") == everything(tmp_path / "again")
    assert (tmp_path / "digits").stat().st_mode & 0o777 == 0o755


def test_fashion_mnist_holds_out_the_end_of_train(tmp_path: Path) -> None:
    images = idx_files(tmp_path / "source")
    counts = make_fashion_mnist(tmp_path / "fashion", tmp_path / "source")
    totals = {
        split: sum(n for name, n in counts.items() if name.startswith(split)) for split in ("train", "val", "test")
    }
    assert totals == {"train": 100, "val": 100, "test": 60}
    (first,) = (tmp_path / "fashion" / "val").glob("*/00.png")
    np.testing.assert_array_equal(np.asarray(Image.open(first)), images[100])
    report = check_dataset(list_dataset(tmp_path / "fashion", 0.2, 0.2, 0), SIZE, strict=True)[0]
    assert report.images == totals
    assert {"T-shirt-top", "Ankle-boot"} <= set(report.labels)


def test_fashion_mnist_takes_limits(tmp_path: Path) -> None:
    idx_files(tmp_path / "source")
    counts = make_fashion_mnist(tmp_path / "fashion", tmp_path / "source", {"train": 30, "test": 20})
    assert sum(n for name, n in counts.items() if name.startswith("train/")) == 30
    assert sum(counts.values()) == 30 + 100 + 20


@pytest.mark.skipif(not public_datasets.FASHION_FOLDER.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_fashion_mnist_from_debian(tmp_path: Path) -> None:
    counts = make_fashion_mnist(tmp_path / "fashion", limits={"train": 500, "val": 200, "test": 200})
    assert len(counts) == 30
    (first,) = (tmp_path / "fashion" / "train").glob("*/000.png")
    assert first.parent.name == "Ankle-boot"


@pytest.mark.parametrize("damage", [b"", b"no gzip", gzip.compress(b"")], ids=["empty", "no gzip", "gzip of nothing"])
def test_a_damaged_source_of_fashion_mnist_is_refused(tmp_path: Path, damage: bytes) -> None:
    idx_files(tmp_path / "source")
    (tmp_path / "source" / "t10k-images-idx3-ubyte.gz").write_bytes(damage)
    with pytest.raises(DatasetError, match="t10k"):
        make_fashion_mnist(tmp_path / "fashion", tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_flowers_come_out_of_their_archive(tmp_path: Path) -> None:
    counts = make_flowers(tmp_path / "flowers", flowers_archive(tmp_path / "small.tgz"))
    assert counts == {"daisy": 5, "tulips": 5}
    assert sorted(path.name for path in (tmp_path / "flowers").iterdir()) == ["LICENSE.txt", "daisy", "tulips"]
    assert check_dataset(list_dataset(tmp_path / "flowers", 0.2, 0.2, 0), SIZE, strict=True)[0].labels == [
        "daisy",
        "tulips",
    ]


def test_an_archive_that_leads_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="outside"):
        make_flowers(tmp_path / "flowers", flowers_archive(tmp_path / "small.tgz", "../../evil.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["small.tgz"]


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.tgz").write_bytes(flowers_archive(tmp_path / "whole.tgz").read_bytes()[:2000])
    with pytest.raises(DatasetError, match=r"should be the archive flower_photos\.tgz"):
        make_flowers(tmp_path / "flowers", tmp_path / "small.tgz")
    assert not (tmp_path / "flowers").exists()


def test_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"could not be downloaded.*--source"):
        make_flowers(tmp_path / "flowers", url=(tmp_path / "nothing.tgz").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_other_bytes_is_refused(tmp_path: Path) -> None:
    archive = flowers_archive(tmp_path / "other.tgz")
    with pytest.raises(DatasetError, match=r"should have SHA-256 4c54ace.*--source"):
        make_flowers(tmp_path / "flowers", url=archive.as_uri())
    assert [path.name for path in tmp_path.iterdir()] == ["other.tgz"]


def test_a_download_of_the_right_bytes_is_used(tmp_path: Path) -> None:
    archive = flowers_archive(tmp_path / "small.tgz")
    assert make_flowers(tmp_path / "flowers", url=archive.as_uri(), sha256=sha256(archive)) == {"daisy": 5, "tulips": 5}
    assert not list((tmp_path / "flowers").rglob("*.tgz"))


def test_fashion_mnist_of_other_bytes_is_refused(tmp_path: Path) -> None:
    idx_files(tmp_path / "mirror")
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz should have SHA-256 c59f468a"):
        make_fashion_mnist(
            tmp_path / "fashion", installed=tmp_path / "not installed", url=(tmp_path / "mirror").as_uri() + "/"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DatasetError, match=r"should be a new or empty folder"):
        make_digits(tmp_path)
    assert everything(tmp_path) == {"mine.txt": b"precious"}
    (tmp_path / "empty").mkdir()
    assert make_flowers(tmp_path / "empty", flowers_archive(tmp_path / "small.tgz"))
