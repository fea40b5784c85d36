"""Public data as folders to train on: digits, Fashion-MNIST, flowers. Nothing here needs TensorFlow.

Each maker writes beside the target and renames at the end, so an interrupted one leaves no half-made folder. It returns
the number of images in each class folder. The same source gives the same files. All makers raise DatasetError.
"""

import contextlib
import gzip
import hashlib
import logging
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.datasets.layout import DatasetError

FLOWERS_URL = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
FLOWERS_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"  # as TensorFlow Datasets has it

FASHION_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
FASHION_SHA256 = {  # of the unpacked files: Debian packs the same bytes again
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_CLASSES = (
    "T-shirt-top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle-boot",
)  # fmt: skip
FASHION_VAL_IMAGES = 5_000

TIMEOUT_S = 60

logger = logging.getLogger(__name__)


def make_digits(folder: Path) -> dict[str, int]:
    """Writes scikit-learn's 1,797 handwritten digits, 8 x 8 gray, as `folder/<digit>/NNNN.png`. Needs no network.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998).
    """
    from sklearn.datasets import load_digits  # takes a second to import, and belongs to the training extra

    pixels, labels = load_digits(return_X_y=True)
    gray = np.minimum(pixels.reshape(-1, 8, 8) * 16, 255).astype(np.uint8)  # 0..16 in the source
    with _whole(folder) as staging:
        return _write(gray, [str(label) for label in labels], staging)


def make_fashion_mnist(
    folder: Path,
    source: Path | None = None,
    limits: Mapping[str, int] | None = None,
    *,
    installed: Path = FASHION_FOLDER,
    url: str = FASHION_URL,
) -> dict[str, int]:
    """Writes Fashion-MNIST, 28 x 28 gray, as `folder/{train,val,test}/<class>/NNNNN.png`.

    There are 55,000, 5,000 and 10,000 images; val is the end of the published training set. `source` is a folder with
    the four idx.gz files. Without it they come from Debian's package where that is installed, else from the network
    (30 MB). `limits` keeps the first images of a split, as {"train": 2000}. Source: Xiao, Rasul, Vollgraf (2017),
    arXiv:1708.07747.
    """
    if source is None and installed.is_dir():
        source = installed
    with _whole(folder) as staging:
        files = {}
        for name in FASHION_SHA256:
            files[name] = _fashion_file(name, source, url, staging)
        train_images, train_labels = _idx_pair("train", files, source or url)
        test_images, test_labels = _idx_pair("t10k", files, source or url)
        held_out = min(FASHION_VAL_IMAGES, len(train_images) // 2)
        splits = {
            "train": (train_images[:-held_out], train_labels[:-held_out]),
            "val": (train_images[-held_out:], train_labels[-held_out:]),
            "test": (test_images, test_labels),
        }
        counts: dict[str, int] = {}
        for split, (images, labels) in splits.items():
            limit = (limits or {}).get(split, len(images))
            names = [f"{split}/{FASHION_CLASSES[label]}" for label in labels[:limit]]
            counts |= _write(images[:limit], names, staging)
        return counts


def make_flowers(
    folder: Path, source: Path | None = None, *, url: str = FLOWERS_URL, sha256: str = FLOWERS_SHA256
) -> dict[str, int]:
    """Writes TensorFlow's 3,670 flower photographs of 5 classes as `folder/<class>/*.jpg`, with their licenses.

    `source` is the archive flower_photos.tgz. Without it the archive comes from the network (229 MB).
    """
    with _whole(folder) as staging, tempfile.TemporaryDirectory(dir=staging) as unpacked:
        archive = source or _download(url, Path(unpacked, "flower_photos.tgz"), sha256)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")  # refuses paths, links and devices that lead outside
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"{archive} should be the archive flower_photos.tgz: {error}") from error
        photos = Path(unpacked, "flower_photos")
        if not photos.is_dir():
            raise DatasetError(f"{archive} should hold a folder flower_photos, and has none")
        for path in sorted(photos.iterdir()):
            path.rename(staging / path.name)
        return dict(sorted(Counter(path.parent.name for path in staging.glob("*/*.jpg")).items()))


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yields a folder to fill beside `folder`. It takes that name when the block ends well, else it is removed."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DatasetError(f"{folder} should be a new or empty folder; there is something in it already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(images: NDArray[np.uint8], classes: list[str], folder: Path) -> dict[str, int]:
    """Writes images uint8 [N, H, W] as `folder/<class>/<index>.png`. Returns the number of images of each class."""
    digits = len(str(len(images) - 1))
    for name in set(classes):
        (folder / name).mkdir(parents=True)
    for index, (image, name) in enumerate(zip(images, classes, strict=True)):
        Image.fromarray(image).save(folder / name / f"{index:0{digits}}.png")
    return dict(sorted(Counter(classes).items()))


def _fashion_file(name: str, source: Path | None, url: str, staging: Path) -> bytes:
    if source is None:
        with tempfile.TemporaryDirectory(dir=staging) as folder:
            return _unpacked(_download(url + name, Path(folder, name), None), FASHION_SHA256[name])
    return _unpacked(source / name, None)


def _unpacked(path: Path, sha256: str | None) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} should be a file of Fashion-MNIST, packed with gzip: {error}") from error
    if sha256:
        _verify(path, hashlib.sha256(data).hexdigest(), sha256)
    return data


def _idx_pair(prefix: str, files: dict[str, bytes], source: object) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads images uint8 [N, 28, 28] and labels uint8 [N] from two IDX files (yann.lecun.com/exdb/mnist)."""
    images, labels = files[f"{prefix}-images-idx3-ubyte.gz"], files[f"{prefix}-labels-idx1-ubyte.gz"]
    count = len(labels) - 8
    sizes = np.frombuffer(images[:16].ljust(16, b"\0"), ">u4").tolist()
    classes = np.frombuffer(labels[8:], np.uint8)
    if sizes != [2051, count, 28, 28] or len(images) != 16 + count * 784 or not count or classes.max() > 9:
        raise DatasetError(
            f"{source}: {prefix} should be N gray images of 28 x 28 (magic 2051) and N labels 0 to 9, "
            f"the header of the images is {sizes} and there are {count} labels"
        )
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), classes


def _download(url: str, path: Path, sha256: str | None) -> Path:
    logger.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, path.open("wb") as file:  # noqa: S310  an address of this module, by https
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException) as error:
        raise DatasetError(
            f"{url} could not be downloaded ({error}): fetch it by other means and name the copy with --source"
        ) from error
    if sha256:
        with path.open("rb") as file:
            _verify(url, hashlib.file_digest(file, "sha256").hexdigest(), sha256)
    return path


def _verify(what: object, actual: str, expected: str) -> None:
    if actual != expected:
        raise DatasetError(
            f"{what} should have SHA-256 {expected}, and has {actual}: the download was cut short, or the file has "
            "changed. Try again, or name a copy that you trust with --source"
        )
